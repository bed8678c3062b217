package cli_test

import (
	"encoding/json"
	"net/http"

	"banger/internal/api"
	"banger/internal/fault"
)

// setUpDNS is found at first not to work, and then to do.
func (f *fake) setUpDNS(r *http.Request) (any, error) {
	var req api.DNSRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		return nil, err
	}
	done := api.DNSChange{Steps: []string{"tell it \x1b[2J"}, Done: !req.DryRun}
	if !done.Done {
		return done, nil
	}
	proof := api.DNSProof{Name: "dev.vm", Address: "172.30.0.2"}
	if f.dns.Wiring == "" {
		proof.Error = fault.New(fault.Unavailable, "the host's resolver has no address of it").WithOp("resolve", "dev.vm").WithHint("see systemd-resolved's log")
	}
	f.dns = api.DNS{Server: "127.0.0.1:42069", Wiring: "systemd-resolved", Proof: &proof}
	done.DNS = f.dns
	return done, nil
}

func (f *fake) undoDNS(r *http.Request) (any, error) {
	var req api.DNSRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		return nil, err
	}
	done := api.DNSChange{Done: !req.DryRun, DNS: f.dns}
	if f.dns.Wiring != "" {
		done.Steps = []string{"forget it"}
	}
	if done.Done {
		f.dns = api.DNS{Server: "127.0.0.1:42069"}
		done.DNS = f.dns
	}
	return done, nil
}
