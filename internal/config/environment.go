package config

import (
	"strconv"

	"banger/internal/fault"
)

// key is a setting that the environment can give.
type key struct {
	name string
	set  func(string) error
}

func text(p *string) func(string) error {
	return func(s string) error { *p = s; return nil }
}

func number(p *int) func(string) error {
	return func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil {
			return fault.New(fault.Invalid, "it is not a whole number").WithOp("read", s).WithHint("write digits only, such as 4")
		}
		*p = n
		return nil
	}
}

func truth(p *bool) func(string) error {
	return func(s string) error {
		v, err := strconv.ParseBool(s)
		if err != nil {
			return fault.New(fault.Invalid, "it is neither true nor false").WithOp("read", s).WithHint("write true or false")
		}
		*p = v
		return nil
	}
}

func factor(p *Factor) func(string) error {
	return func(s string) error {
		n, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return fault.New(fault.Invalid, "it is not a number").WithOp("read", s).WithHint("write a number such as 1.5")
		}
		*p = Factor(n)
		return nil
	}
}

func unmarshal(p interface{ UnmarshalText([]byte) error }) func(string) error {
	return func(s string) error { return p.UnmarshalText([]byte(s)) }
}

func clientKeys(f *File) []key {
	return []key{
		{"BANGER_SOCKET", text(&f.Socket)},
		{"BANGER_SSH_KEY", text(&f.SSHKey)},
		{"BANGER_VM_IMAGE", text(&f.VM.Image)},
		{"BANGER_VM_VCPU", number(&f.VM.VCPU)},
		{"BANGER_VM_MEMORY", unmarshal(&f.VM.Memory)},
		{"BANGER_VM_ROOT_DISK", unmarshal(&f.VM.RootDisk)},
		{"BANGER_VM_WORK_DISK", unmarshal(&f.VM.WorkDisk)},
		{"BANGER_VM_TIMEZONE", unmarshal(&f.VM.Timezone)},
		{"BANGER_VM_LOCALE", unmarshal(&f.VM.Locale)},
	}
}

func daemonKeys(f *File) []key {
	d := &f.Daemon
	return []key{
		{"BANGER_STATE_DIR", text(&d.StateDir)},
		{"BANGER_RUNTIME_DIR", text(&d.RuntimeDir)},
		{"BANGER_GROUP", text(&d.Group)},
		{"BANGER_FIRECRACKER_BIN", text(&d.FirecrackerBin)},
		{"BANGER_AGENT_BIN", text(&d.AgentBin)},
		{"BANGER_LOG_LEVEL", unmarshal(&d.LogLevel)},
		{"BANGER_SUBNET", text(&d.Subnet)},
		{"BANGER_MIRROR", text(&d.Mirror)},
		{"BANGER_BOOT_TIMEOUT", unmarshal(&d.BootTimeout)},
		{"BANGER_STOP_TIMEOUT", unmarshal(&d.StopTimeout)},
		{"BANGER_TRASH_GRACE", unmarshal(&d.TrashGrace)},
		{"BANGER_WARM", unmarshal(&d.Warm)},
		{"BANGER_TAP_POOL", number(&d.TAPPool)},
		{"BANGER_STORAGE_ROOT_BACKEND", unmarshal(&f.Storage.RootBackend)},
		{"BANGER_NETWORK_ISOLATED", truth(&f.Network.Isolated)},
		{"BANGER_NETWORK_NAT", truth(&f.Network.NAT)},
		{"BANGER_NETWORK_NAT6", truth(&f.Network.NAT6)},
		{"BANGER_NETWORK_EGRESS", unmarshal(&f.Network.Egress)},
		{"BANGER_NETWORK_ALLOW", unmarshal(&f.Network.Allow)},
		{"BANGER_DNS_LISTEN", unmarshal(&f.DNS.Listen)},
		{"BANGER_METRICS_LISTEN", unmarshal(&f.Metrics.Listen)},
		{"BANGER_ADMISSION_MEMORY_OVERCOMMIT", factor(&f.Admission.MemoryOvercommit)},
		{"BANGER_ADMISSION_LOW_WATER", unmarshal(&f.Admission.LowWater)},
		{"BANGER_QUOTA_VMS", number(&f.Quota.VMs)},
		{"BANGER_QUOTA_VCPU", number(&f.Quota.VCPU)},
		{"BANGER_QUOTA_MEMORY", unmarshal(&f.Quota.Memory)},
		{"BANGER_QUOTA_DISK", unmarshal(&f.Quota.Disk)},
	}
}

// environment sets what the environment gives. An empty variable is as good as none.
func environment(lookup func(string) (string, bool), keys []key) error {
	for _, k := range keys {
		value, ok := lookup(k.name)
		if !ok || value == "" {
			continue
		}
		if err := k.set(value); err != nil {
			return fault.New(fault.Invalid, "%w", err).WithOp("read environment", k.name).WithHint("%s", fault.From(err).Hint)
		}
	}
	return nil
}
