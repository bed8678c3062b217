package api

import "banger/internal/fault"

// Ports are the ports of the host that lead to a VM, and those that are listened on in it.
type Ports struct {
	Doors     []Door          `json:"doors"`
	Listening []GuestListener `json:"listening" doc:"TCP sockets of the guest, the lowest ports first; empty where it does not run"`
	More      int             `json:"more,omitempty" doc:"that there are beside those"`
	Error     *fault.Error    `json:"error,omitempty" doc:"why the guest does not say who listens"`
}

// Door is a TCP port of the host that leads to one of a VM's.
type Door struct {
	Spec      string       `json:"spec" doc:"as it was asked for, in its shortest form"`
	Address   string       `json:"address" doc:"on the host"`
	HostPort  int          `json:"host_port"`
	GuestPort int          `json:"guest_port"`
	State     DoorState    `json:"state" doc:"open; closed while the VM is down; failed where it could not be opened, which is tried again"`
	Error     *fault.Error `json:"error,omitempty" doc:"why it could not be opened"`
}

// DoorState says whether one can connect.
type DoorState string

// The states.
const (
	DoorOpen   DoorState = "open"
	DoorClosed DoorState = "closed"
	DoorFailed DoorState = "failed"
)

// GuestListener is a TCP socket of a guest that is listened on.
type GuestListener struct {
	Address string `json:"address"`
	Port    int    `json:"port"`
	PID     int    `json:"pid,omitempty" doc:"in the guest"`
	Program string `json:"program,omitempty" doc:"that process's name"`
	Door    string `json:"door,omitempty" doc:"where on the host it can be reached, by a door that is open"`
}
