package lifecycle_test

import (
	"context"
	"strings"

	"banger/internal/agentproto"
	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/vm"
)

// keeper keeps a VM from being deleted while its owner says why: `banger vm set dev --set keep="until the release"`.
// Who logs in to the VM reads it too.
type keeper struct{}

func (keeper) Name() string { return "keeper" }

func (keeper) Contribute(v vm.VM, b *feature.Blueprint) {
	if why := v.Settings["keep"]; why != "" {
		b.Guest.Files = append(b.Guest.Files, agentproto.File{Path: "/etc/motd", Mode: 0o644, Content: []byte("kept: " + why + "\n")})
	}
}

func (keeper) Settings() []feature.Setting {
	return []feature.Setting{{
		Key: "keep",
		Get: func(v vm.VM) string { return v.Settings["keep"] },
		Set: func(v *vm.VM, value string) error {
			if len(value) > 200 || strings.ContainsAny(value, "\n\r\x1b") {
				return fault.New(fault.Invalid, "it is no short line of text").WithOp("read keep", value).
					WithHint("such as %q", "until the release")
			}
			v.Write("keep", value)
			return nil
		},
		Restart: func(feature.Change) string { return "a guest reads it as it boots" },
	}}
}

func (keeper) Guard(_ context.Context, v vm.VM, _ feature.Guest) error {
	if why := v.Settings["keep"]; why != "" {
		return fault.New(fault.InUse, "it is kept: %s", why).
			WithHint("if that is over: banger vm set %s --set keep=", v.Name)
	}
	return nil
}
