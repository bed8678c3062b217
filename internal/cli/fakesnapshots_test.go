package cli_test

import (
	"encoding/json"
	"net/http"
	"time"

	"banger/internal/api"
	"banger/internal/fault"
	"banger/internal/vm"
)

// snapshots serves forks and checkpoints. Every VM has the same two checkpoints.
func (f *fake) snapshots(handle func(pattern string, h func(r *http.Request) (any, error))) {
	handle("POST /v1/vms/{vm}/fork", func(r *http.Request) (any, error) {
		v, err := f.find(r.PathValue("vm"))
		if err != nil {
			return nil, err
		}
		var req api.ForkVM
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			return nil, err
		}
		f.begin("vm.fork", string(v.ID), v.Name, done("pause", 2), done("snapshot", 310))
		o := &f.ops[len(f.ops)-1]
		for range max(1, req.Count) {
			o.Made = append(o.Made, string(f.vms[1].ID))
		}
		return *o, nil
	})
	handle("GET /v1/vms/{vm}/checkpoints", func(r *http.Request) (any, error) {
		_, err := f.find(r.PathValue("vm"))
		return []api.Checkpoint{
			{Name: "before", Created: time.Now().Add(-time.Hour), Spec: vm.Spec{Memory: vm.GiB}, Size: 300 * vm.MiB},
			{Name: "old\x1b[2J", Error: fault.New(fault.Incompatible, "Firecracker was \"1.12.1\" then and is \"1.13.0\" now").WithOp("go back to checkpoint", "old")},
		}, err
	})
	handle("POST /v1/vms/{vm}/checkpoints", func(r *http.Request) (any, error) {
		v, err := f.find(r.PathValue("vm"))
		if err != nil {
			return nil, err
		}
		return f.begin("vm.checkpoint", string(v.ID), v.Name, done("snapshot", 310)), nil
	})
	handle("POST /v1/vms/{vm}/checkpoints/{name}/restore", func(r *http.Request) (any, error) {
		v, err := f.find(r.PathValue("vm"))
		if err != nil {
			return nil, err
		}
		return f.begin("vm.rollback", string(v.ID), v.Name, done("restore", 120)), nil
	})
	handle("DELETE /v1/vms/{vm}/checkpoints/{name}", func(*http.Request) (any, error) { return struct{}{}, nil })
}
