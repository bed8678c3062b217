package agent_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"banger/internal/agent"
)

func TestFollow(t *testing.T) {
	const behind, ahead = 100 * time.Millisecond, 2 * time.Second // are tolerated
	tests := []struct {
		name    string
		off     time.Duration
		broken  bool
		stepped bool
		want    string // in the log or the error
	}{
		{"right", 0, false, false, ""},
		{"a little behind", behind, false, false, ""},
		{"a little ahead", -ahead, false, false, ""},
		{"behind", behind + 1, false, true, `the clock was stepped" by=100.000001ms`},
		{"ahead", -ahead - 1, false, true, `the clock was stepped" by=-2.000000001s`},
		{"asleep for a weekend", 60 * time.Hour, false, true, "by=60h0m0s"},
		{"not ours to set", time.Hour, true, false, "set the clock: operation not permitted"},
		{"broken but right", 0, true, false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := &clock{now: noon(), broken: tt.broken}
			var said bytes.Buffer
			off, err := agent.Follow(c, noon().Add(tt.off), slog.New(slog.NewTextHandler(&said, nil)))
			if err != nil {
				said.WriteString(err.Error())
			}
			if off != tt.off {
				t.Errorf("it was off by %v, want %v", off, tt.off)
			}
			if stepped := !c.Now().Equal(noon()); stepped != tt.stepped {
				t.Errorf("stepped is %v", stepped)
			}
			if !strings.Contains(said.String(), tt.want) || (tt.want == "") != (said.Len() == 0) {
				t.Errorf("it said %q, want %q", said.String(), tt.want)
			}
		})
	}
}
