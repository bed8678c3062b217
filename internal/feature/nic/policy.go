package nic

import (
	"context"

	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/network"
	"banger/internal/vm"
)

// inherit is the value that leaves a setting to the instance.
const inherit = "default"

// Settings implements feature.Setter. What a VM may connect to comes before whether it is held to that, so that it is never
// held to a list that is about to be another.
func (f *Feature) Settings() []feature.Setting {
	return []feature.Setting{
		f.setting(network.SettingIsolated, func(p network.Policy) string { return onOff(p.Isolated) }, checkOnOff),
		f.setting(network.SettingNAT, func(p network.Policy) string { return onOff(p.NAT) }, checkOnOff),
		f.setting(network.SettingNAT6, func(p network.Policy) string { return onOff(p.NAT6) }, checkOnOff),
		{
			Key:   network.SettingAllow,
			Get:   func(v vm.VM) string { return network.PolicyOf(v, f.Defaults).Allow.String() },
			Set:   f.setAllow,
			Apply: f.apply,
		},
		f.setting(network.SettingEgress, func(p network.Policy) string { return string(p.Egress) }, func(_, value string) error {
			_, err := network.ParseEgress(value)
			return err
		}),
	}
}

// setting is one whose value is kept as its owner wrote it.
func (f *Feature) setting(key string, get func(network.Policy) string, check func(key, value string) error) feature.Setting {
	return feature.Setting{
		Key: key,
		Get: func(v vm.VM) string { return get(network.PolicyOf(v, f.Defaults)) },
		Set: func(v *vm.VM, value string) error {
			if value == inherit {
				value = ""
			} else if err := check(key, value); err != nil {
				return err
			}
			v.Write(key, value)
			return nil
		},
		Apply: f.apply,
	}
}

// apply makes a VM's policy true of one that runs.
func (f *Feature) apply(ctx context.Context, c feature.Change, _ feature.Report) (later string, err error) {
	if !c.Runs() {
		return "", nil
	}
	return "", f.Gate.Guard(ctx, network.GuestOf(c.Is, f.Defaults))
}

// setAllow takes a list in place of the one that there is, or one entry more by +ENTRY, or less by -ENTRY.
func (f *Feature) setAllow(v *vm.VM, value string) error {
	if value == inherit {
		v.Write(network.SettingAllow, "")
		return nil
	}
	a, err := network.PolicyOf(*v, f.Defaults).Allow.Edit(value)
	if err != nil {
		return err
	}
	v.Settings = withKey(v.Settings, network.SettingAllow, a.String())
	return nil
}

// withKey sets a value that may be empty and is not the same as none: nothing is allowed, whatever the instance allows.
func withKey(settings map[string]string, key, value string) map[string]string {
	if settings == nil {
		settings = map[string]string{}
	}
	settings[key] = value
	return settings
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func checkOnOff(key, value string) error {
	if value == "on" || value == "off" {
		return nil
	}
	return fault.New(fault.Invalid, "it is neither on nor off").WithOp("read "+key, value).
		WithHint("write on, off, or default, which leaves it to the instance")
}
