package cli_test

import (
	"banger/internal/api"
	"banger/internal/fault"
)

// findings has one of each sort.
func findings(mend bool) []api.Finding {
	all := []api.Finding{
		{Kind: "orphan", Subject: "tap bt1f2e-01234567", Why: "no VM holds it\x1b[2J", Repair: "remove it", Done: mend},
		{Kind: "unknown", Subject: "directory /var/lib/banger/vms/77ab01cd23ef", Why: "the database knows no VM of it", Hint: "take it back"},
	}
	if mend {
		all = append(all, api.Finding{
			Kind: "adrift", Subject: "VM dev", Why: "no daemon holds it", Repair: "take it back",
			Error: fault.New(fault.Unavailable, "it refuses").WithOp("attach", "dev"),
		})
	}
	return all
}
