package daemon

import "testing"

func TestAProbesReasonIsToldOnce(t *testing.T) {
	for said, want := range map[string]string{
		"the guest answered: dial tcp 203.0.113.7:81: connect: connection refused":        "connection refused",
		"the guest answered: dial tcp: lookup no.example on 10.9.0.1:53: no such host":    "no such host",
		"the guest answered: dial tcp [2001:db8::1]:443: connect: network is unreachable": "network is unreachable",
		"the guest answered: overloaded":                                                  "overloaded",
		"no answer within 10 s: it was busy":                                              "no answer within 10 s: it was busy",
	} {
		if got := reason(said); got != want {
			t.Errorf("%q: got %q, want %q", said, got, want)
		}
	}
}
