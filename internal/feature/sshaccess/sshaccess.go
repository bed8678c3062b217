// Package sshaccess lets a VM's owner in: a host key that the owner's client can insist on, and the
// owner's public keys.
package sshaccess

import (
	"banger/internal/agentproto"
	"banger/internal/feature"
	"banger/internal/vm"
)

// Feature is access over SSH.
type Feature struct{}

// Name implements feature.Feature.
func (Feature) Name() string { return "ssh-access" }

// Contribute hands the keys to the guest and waits for the services that the image offers.
func (Feature) Contribute(v vm.VM, b *feature.Blueprint) {
	b.Guest.AuthorizedKeys = v.Access.AuthorizedKeys
	b.Guest.Files = append(b.Guest.Files,
		agentproto.File{Path: "/etc/ssh/ssh_host_ed25519_key", Mode: 0o600, Content: []byte(v.Access.HostKeyPrivate)},
		agentproto.File{Path: "/etc/ssh/ssh_host_ed25519_key.pub", Mode: 0o644, Content: []byte(v.Access.HostKey + "\n")},
	)
	for _, s := range b.Image.Services {
		b.Guest.Services = append(b.Guest.Services, agentproto.Service{Name: s.Name, Port: s.Port})
	}
}
