package cli_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"

	"banger/internal/api"
	"banger/internal/fault"
	"banger/internal/network"
	"banger/internal/vm"
)

// plan alters everything that is asked for. vCPUs wait for the next start.
func (f *fake) plan(r *http.Request) (any, error) {
	v, err := f.find(r.PathValue("vm"))
	if err != nil {
		return nil, err
	}
	var req api.SetVM
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		return nil, err
	}
	out := []api.Altered{}
	for _, key := range slices.Sorted(maps.Keys(req.Settings)) {
		x := api.Altered{Key: key, From: "as it was", To: req.Settings[key]}
		if key == "vcpu" {
			x.Restart = "a guest keeps the vCPUs that it was booted with"
		}
		if v.Name != "old" { // it is so already
			out = append(out, x)
		}
	}
	return out, nil
}

func (f *fake) set(r *http.Request) (any, error) {
	v, err := f.find(r.PathValue("vm"))
	if err != nil {
		return nil, err
	}
	var req api.SetVM
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		return nil, err
	}
	if size, err := vm.ParseSize(req.Settings["work_disk"]); err == nil && size < v.Spec.WorkDisk {
		return nil, fault.New(fault.Invalid, "a disk never shrinks").WithOp("set VM", v.Name).WithHint("choose more than it has")
	}
	if text, ok := req.Settings[vm.SettingPorts]; ok {
		if err := setPorts(v, text); err != nil {
			return nil, err
		}
	}
	if egress := req.Settings[network.SettingEgress]; egress != "" {
		v.Settings = maps.Clone(v.Settings)
		v.Settings[network.SettingEgress] = egress
		v.Policy = policyOf(v.Settings)
	}
	o := f.begin("vm.set", string(v.ID), v.Name)
	v.Pending = nil
	if req.Settings["vcpu"] != "" {
		v.Pending = []string{"vcpu"}
		o.Warnings = []string{v.Name + ": vcpu takes effect at the next start: a guest keeps the vCPUs that it was booted with"}
		f.ops[len(f.ops)-1] = o
	}
	if name := req.Settings["name"]; name != "" {
		v.Name = name
	}
	labels := map[string]string{}
	maps.Copy(labels, v.Labels)
	for key, value := range req.Labels {
		delete(labels, key)
		if value != nil {
			labels[key] = *value
		}
	}
	v.Labels = labels
	return o, nil
}
