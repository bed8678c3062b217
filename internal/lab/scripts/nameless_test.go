package scripts

import "testing"

// TestNameless holds that the rules for two guests are told to be the same, and those of the host are not touched.
func TestNameless(t *testing.T) {
	for line, want := range map[string]string{
		`nft "btf4f1-ID" . 02:ba:0a:df:00:0e }`:                           `nft "btf4f1-ID" . GUEST }`,
		"nft elements = { 10.223.0.14 . 10.223.0.1 }":                     "nft elements = { GUEST . 10.223.0.1 }",
		"nft elements = { fd4f:b53c:a9e3::adf:e . fd4f:b53c:a9e3::,":      "nft elements = { GUEST . fd4f:b53c:a9e3::,",
		"nft fe80::ba:aff:fedf:e . fd4f:b53c:a9e3::adf:1 }":               "nft GUEST . fd4f:b53c:a9e3::adf:1 }",
		"nft meta nfproto ipv6 @nh,192,16 & 0xffc0 == 0xfe80 goto refuse": "nft meta nfproto ipv6 @nh,192,16 & 0xffc0 == 0xfe80 goto refuse",
		"nft ip daddr 169.254.0.0/16 goto refuse":                         "nft ip daddr 169.254.0.0/16 goto refuse",
	} {
		if got := addresses.ReplaceAllStringFunc(line, nameless); got != want {
			t.Errorf("%q: got %q", line, got)
		}
	}
}
