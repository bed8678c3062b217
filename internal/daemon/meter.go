package daemon

import (
	"banger/internal/host/link"
	"banger/internal/host/proc"
	"banger/internal/vm"
)

// meter reads what running VMs use of this host.
type meter struct{}

func (meter) Use(p vm.Process, shared bool) (vm.Usage, error) { return proc.Use(p, shared) }

func (meter) Traffic() (map[string]vm.Traffic, error) { return link.Traffic() }
