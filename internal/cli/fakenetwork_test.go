package cli_test

import (
	"encoding/json"
	"net/http"
	"time"

	"banger/internal/api"
	"banger/internal/fault"
	"banger/internal/network"
	"banger/internal/vm"
)

// explain knows that example.com is let out to, and nothing else.
func (f *fake) explain(r *http.Request) (any, error) {
	var req api.Explain
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		return nil, err
	}
	v, err := f.find(r.PathValue("vm"))
	if err != nil {
		return nil, err
	}
	e := api.Explanation{VM: v.Name, Destination: req.Destination, Explanation: network.Explanation{
		Address: "203.0.113.7", Passes: true,
		Steps: []network.Step{
			{Subject: "name", Passes: true, Detail: "the guest is told 203.0.113.7"},
			{Subject: "egress", Passes: true, Detail: "egress is all", Rule: "from, set open4"},
		},
	}}
	if req.Destination != "example.com:443" {
		e.Passes, e.Hint = false, "banger vm set dev --allow +"+req.Destination
		e.Steps = []network.Step{{Subject: "name", Detail: "egress is list, and the allow list does not have the name\x1b[2J"}}
	}
	if req.Probe {
		e.Probe = &api.Probe{Connected: e.Passes, Took: 12 * time.Millisecond}
		if !e.Passes {
			e.Probe.Error = "connection refused"
		}
	}
	return e, nil
}

// policyOf is a VM's policy by these settings, of an instance that lets out.
func policyOf(settings map[string]string) *api.Policy {
	return api.PolicyOf(network.PolicyOf(vm.VM{Settings: settings}, network.Policy{NAT: true, Egress: network.EgressAll}))
}

// uninstallNetwork takes away an accept once, while no VM runs.
func (f *fake) uninstallNetwork(r *http.Request) (any, error) {
	var req api.UninstallNetwork
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		return nil, err
	}
	if f.clean {
		return []string{}, nil
	}
	for _, v := range f.vms {
		if v.State == "running" {
			return nil, fault.New(fault.InUse, "VMs run: dev").WithOp("uninstall network", "").WithHint("stop them first: `banger vm stop --all`")
		}
	}
	f.clean = !req.DryRun
	return []string{"the accept for VMs in Docker, iptables DOCKER-USER"}, nil
}
