package vm

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"banger/internal/fault"
)

// ID is a VM's stable identity: 12 lower-case hexadecimal digits.
type ID string

const idDigits = 12

// NewID returns a random id.
func NewID() ID {
	var b [idDigits / 2]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand aborts the process instead
	return ID(hex.EncodeToString(b[:]))
}

// NewMachineID returns a random id in the form of /etc/machine-id: 32 lower-case hexadecimal digits.
func NewMachineID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

var idPattern = regexp.MustCompile(`^[0-9a-f]{12}$`)

// Valid reports whether the id has the form that NewID gives.
func (id ID) Valid() bool { return idPattern.MatchString(string(id)) }

// TAP is the name of the VM's network device on the host: at most 15 bytes, which is what the
// kernel allows, and bearing the instance's tag so that instances tell their devices apart.
func (id ID) TAP(tag Tag) string { return tag.TAPs() + string(id[:tapID]) }

// tapID is how much of a VM's id its TAP's name has room for.
const tapID = 8

// Tag marks the host devices of one instance: 4 lower-case hexadecimal digits.
type Tag string

var tagPattern = regexp.MustCompile(`^[0-9a-f]{4}$`)

// Marks reports whether a device's name is a TAP's of this instance.
func (t Tag) Marks(device string) bool {
	id, ok := strings.CutPrefix(device, t.TAPs())
	return ok && t.Valid() && len(id) == tapID && strings.Trim(id, "0123456789abcdef") == ""
}

// TAPs is what the names of its VMs' TAPs begin with.
func (t Tag) TAPs() string { return "bt" + string(t) + "-" }

// TagOf is the tag of the instance that a VM's TAP is of, by the TAP's name.
func TagOf(tap string) (t Tag, ok bool) {
	rest, ok := strings.CutPrefix(tap, "bt")
	head, _, _ := strings.Cut(rest, "-")
	t = Tag(head)
	return t, ok && t.Marks(tap)
}

// MaxSpares bounds how many TAPs of an instance may be kept ready: a number has two digits.
const MaxSpares = 100

// Spare is the name of the n-th TAP that is kept ready, from 0: with all of a device name's 15 bytes. It becomes a VM's by
// taking that one's name.
func (t Tag) Spare(n int) string { return fmt.Sprintf("%s%02d", t.spare(), n) }

// MarksSpare reports whether a device's name is that of a TAP which this instance keeps ready, and its number.
func (t Tag) MarksSpare(device string) (n int, ok bool) {
	digits, ok := strings.CutPrefix(device, t.spare())
	n, err := strconv.Atoi(digits)
	return n, ok && err == nil && n >= 0 && t.Valid() && device == t.Spare(n)
}

func (t Tag) spare() string { return "tap-pool-" + string(t) }

// Valid reports whether the tag has the right form.
func (t Tag) Valid() bool { return tagPattern.MatchString(string(t)) }

// Bridge is the name of the instance's bridge on the host.
//
// The first has the number 0. Of a number above 999 no device could bear the name.
func (t Tag) Bridge(n int) string {
	if n == 0 {
		return bridgePrefix + string(t)
	}
	return bridgePrefix + string(t) + "-" + strconv.Itoa(n)
}

const bridgePrefix = "banger-"

// MarksBridge reports whether a device is a bridge of the instance by its name, and which.
func (t Tag) MarksBridge(device string) (n int, ok bool) {
	of, n, ok := BridgeOf(device)
	return n, ok && of == t
}

// BridgeOf tells whose bridge a device is by its name, and which.
func BridgeOf(device string) (of Tag, n int, ok bool) {
	rest, ok := strings.CutPrefix(device, bridgePrefix)
	if !ok || len(rest) < tagLen {
		return "", 0, false
	}
	of = Tag(rest[:tagLen])
	if digits, numbered := strings.CutPrefix(rest[tagLen:], "-"); numbered {
		n, _ = strconv.Atoi(digits)
	}
	return of, n, of.Valid() && n >= 0 && of.Bridge(n) == device
}

const tagLen = 4

// Select finds the VM that selector names among candidates: an exact name first, then an exact id,
// then a unique prefix of an id. The candidates must already be those the caller may see.
func Select(candidates []VM, selector string) (VM, error) {
	if selector == "" {
		return VM{}, fault.New(fault.Invalid, "no VM was named").WithHint("run `banger vm list` to see your VMs")
	}
	var byPrefix []VM
	for _, c := range candidates {
		if c.Name == selector || string(c.ID) == selector {
			return c, nil
		}
		if strings.HasPrefix(string(c.ID), selector) {
			byPrefix = append(byPrefix, c)
		}
	}
	switch len(byPrefix) {
	case 1:
		return byPrefix[0], nil
	case 0:
		return VM{}, fault.New(fault.NotFound, "no VM has this name or id").
			WithOp("find VM", selector).WithHint("run `banger vm list` to see your VMs")
	default:
		var names []string
		for _, c := range byPrefix {
			names = append(names, c.Name+" ("+string(c.ID)+")")
		}
		return VM{}, fault.New(fault.Ambiguous, "it matches %d VMs: %s", len(byPrefix), strings.Join(names, ", ")).
			WithOp("find VM", selector).WithHint("give more digits of the id, or the name")
	}
}
