package vm

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/cli/app"
	nouns "banger/internal/network"
)

// networkFlags are what a VM's owner lets it do on the network. What is not given stays as it is, or is the instance's.
type networkFlags struct {
	isolated, nat, nat6, egress string
	allow                       []string
}

func (n *networkFlags) on(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&n.isolated, "isolated", "", "`on` keeps it and other VMs apart, off lets them reach each other")
	f.StringVar(&n.nat, "nat", "", "`on` lets it out by the host's IPv4 addresses, off does not")
	f.StringVar(&n.nat6, "nat6", "", "`on` lets it out by the host's IPv6 addresses, off does not")
	f.StringVar(&n.egress, "egress", "", "how far it may connect: `all`, none, or list, which is what --allow has")
	f.StringArrayVar(&n.allow, "allow", nil, "what it may connect to under --egress list: `NAME`, *.NAME, an address or a CIDR; +NAME adds one to what there is, -NAME takes one away; may be repeated")
	for _, flag := range []string{"isolated", "nat", "nat6"} {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions([]string{"on", "off", "default"}, cobra.ShellCompDirectiveNoFileComp))
	}
	kinds := []string{"default"}
	for _, e := range nouns.Egresses() {
		kinds = append(kinds, string(e))
	}
	_ = cmd.RegisterFlagCompletionFunc("egress", cobra.FixedCompletions(kinds, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("allow", cobra.NoFileCompletions)
}

// settings adds what was given to values of settings.
func (n *networkFlags) settings(into map[string]string) {
	for key, value := range map[string]string{
		nouns.SettingIsolated: n.isolated, nouns.SettingNAT: n.nat, nouns.SettingNAT6: n.nat6,
		nouns.SettingEgress: n.egress, nouns.SettingAllow: strings.Join(n.allow, ","),
	} {
		if value != "" {
			into[key] = value
		}
	}
}

// hintAllow tells of an allow list that is not in force: whoever wrote it may think that it holds the VM back.
func hintAllow(a *app.App, v api.VM) {
	if v.Policy != nil && v.Policy.Egress != nouns.EgressList {
		a.Hint("egress is %s, so nothing comes of the allow list yet: banger vm set %s --egress list", v.Policy.Egress, v.Name)
	}
}

// policyText is what a VM may do on the network, in the words of the flags; a daemon that is older does not tell.
func policyText(p *api.Policy) string {
	if p == nil {
		return ""
	}
	return fmt.Sprintf("egress %s, nat %s, nat6 %s, isolated %s", p.Egress, onOff(p.NAT), onOff(p.NAT6), onOff(p.Isolated))
}

// allowText is the allow list, where it is in force.
func allowText(p *api.Policy) string {
	switch {
	case p == nil || p.Egress != nouns.EgressList:
		return ""
	case len(p.Allow) == 0:
		return "nothing"
	}
	return strings.Join(p.Allow, ", ")
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}
