package app

import (
	"path/filepath"

	"github.com/adrg/xdg"

	"banger/internal/cli/userkey"
)

// Key is the key with which the user logs in to VMs: the configured one, else one that banger made
// once for this user.
func (a *App) Key() (userkey.Key, error) {
	cfg, err := a.Config()
	if err != nil {
		return userkey.Key{}, err
	}
	if cfg.SSHKey != "" {
		return userkey.Load(cfg.SSHKey)
	}
	return userkey.Ensure(filepath.Join(xdg.DataHome, "banger", "id_ed25519"))
}

// KnownHosts is the file that holds the one host key of a VM.
func KnownHosts(id string) string { return filepath.Join(xdg.CacheHome, "banger", "known_hosts", id) }
