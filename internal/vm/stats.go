package vm

import "time"

// Stats is what a VM uses. All counts begin with its start, so that two looks tell of the time between them.
type Stats struct {
	ID     ID        `json:"id"`
	Name   string    `json:"name"`
	State  State     `json:"state"`
	At     time.Time `json:"at" doc:"when it was looked at"`
	VCPU   int       `json:"vcpu"`
	Memory int64     `json:"memory" doc:"bytes that the guest has"`

	Host    *Usage      `json:"host,omitempty" doc:"of its hypervisor; absent when there is none"`
	Guest   *GuestUsage `json:"guest,omitempty" doc:"as its agent says; absent when it does not, or is too old to"`
	Root    DiskUsage   `json:"root_disk"`
	Work    DiskUsage   `json:"work_disk"`
	Network *Traffic    `json:"network,omitempty" doc:"as the guest sees it; absent when its NIC is not there"`
}

// Usage is what a process of the host has used.
type Usage struct {
	CPU time.Duration `json:"cpu" doc:"nanoseconds that all its threads have run"`
	RSS int64         `json:"rss" doc:"bytes resident"`
	PSS int64         `json:"pss,omitempty" doc:"bytes resident, shared ones by its part; only when asked for"`
}

// GuestUsage is what a guest says of itself.
type GuestUsage struct {
	CPU       time.Duration `json:"cpu" doc:"nanoseconds that its vCPUs were not idle"`
	Total     int64         `json:"memory_total" doc:"bytes"`
	Available int64         `json:"memory_available" doc:"bytes that its programs could still have"`
	At        time.Time     `json:"at" doc:"when it said so, a few seconds ago at most"`
}

// DiskUsage is what a disk has of the host's.
type DiskUsage struct {
	Allocated int64 `json:"allocated" doc:"bytes; blocks that it shares with its image count too"`
	Size      int64 `json:"size" doc:"bytes, as the guest sees it"`
}

// Traffic is what has gone through a network device.
type Traffic struct {
	RxBytes   int64 `json:"rx_bytes" doc:"received"`
	RxPackets int64 `json:"rx_packets"`
	TxBytes   int64 `json:"tx_bytes" doc:"sent"`
	TxPackets int64 `json:"tx_packets"`
}

// Far is the same traffic as the other end sees it.
func (t Traffic) Far() Traffic {
	return Traffic{RxBytes: t.TxBytes, RxPackets: t.TxPackets, TxBytes: t.RxBytes, TxPackets: t.RxPackets}
}
