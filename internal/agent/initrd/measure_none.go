//go:build !measured

package initrd

import (
	"context"

	"banger/internal/agentproto"
)

// measure looks at disks before they are mounted. A build for the lab, with the tag measured, tells what is on them.
func (*Boot) measure(context.Context, ...agentproto.Mount) error { return nil }
