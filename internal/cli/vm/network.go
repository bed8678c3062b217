package vm

import (
	"strings"

	"github.com/spf13/cobra"

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
