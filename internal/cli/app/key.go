package app

import (
	"path/filepath"

	"github.com/adrg/xdg"

	"banger/internal/cli/userkey"
)

// Key is the key with which the user logs in to VMs. The one that banger makes is made where it is not there.
func (a *App) Key() (userkey.Key, error) {
	path, own, err := a.KeyPath()
	switch {
	case err != nil:
		return userkey.Key{}, err
	case own:
		return userkey.Load(path)
	}
	return userkey.Ensure(path)
}

// KeyPath is where that key is: the user's own by the configuration, else one that banger makes once for this user.
func (a *App) KeyPath() (path string, own bool, err error) {
	cfg, err := a.Config()
	if cfg.SSHKey != "" {
		return cfg.SSHKey, true, err
	}
	return filepath.Join(xdg.DataHome, "banger", "id_ed25519"), false, err
}

// KnownHosts is the file that holds the one host key of a VM.
func KnownHosts(id string) string { return filepath.Join(xdg.CacheHome, "banger", "known_hosts", id) }

// SSHConfig is the file of ours that the user's ssh_config includes, where that is installed.
func SSHConfig() string { return filepath.Join(xdg.DataHome, "banger", "ssh_config") }
