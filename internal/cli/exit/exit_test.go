package exit_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"banger/internal/cli/exit"
	"banger/internal/fault"
)

func TestEveryCodeHasItsOwnStatus(t *testing.T) {
	seen := map[int]fault.Code{exit.OK: "success"}
	for _, code := range fault.Codes() {
		status := exit.Of(fmt.Errorf("wrapped: %w", fault.New(code, "x")))
		if other, taken := seen[status]; taken {
			t.Errorf("%s and %s share exit status %d", code, other, status)
		}
		seen[status] = code
		if status == 1 && code != fault.Internal {
			t.Errorf("%s has no row of its own", code)
		}
		if !strings.Contains(exit.Help(), string(code)) {
			t.Errorf("the help does not mention %s", code)
		}
	}
}

func TestOf(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("plain"), 1},
		{fault.New(fault.Invalid, "x"), 2},
		{fault.New(fault.Canceled, "x"), 130},
		{fmt.Errorf("ssh: %w", exit.Status(42)), 42},
	} {
		if got := exit.Of(tc.err); got != tc.want {
			t.Errorf("Of(%v) = %d, want %d", tc.err, got, tc.want)
		}
	}
}

func TestCommon(t *testing.T) {
	missing, late := fault.New(fault.NotFound, "x"), fault.New(fault.Timeout, "x")
	for _, tc := range []struct {
		errs []error
		want int
	}{
		{nil, 0},
		{[]error{nil, nil}, 0},
		{[]error{nil, missing, nil}, 3},
		{[]error{missing, nil, missing}, 3},
		{[]error{late, nil, missing}, 1},
		{[]error{late, missing, late}, 1},
	} {
		if got := exit.Of(exit.Common(tc.errs)); got != tc.want {
			t.Errorf("Common(%v) = %d, want %d", tc.errs, got, tc.want)
		}
	}
}
