package vm

import (
	"math/rand/v2"
	"regexp"
	"strings"

	"banger/internal/fault"
)

// A name is a DNS label, since it becomes <name>.vm and the guest's hostname.
var namePattern = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)

// CheckName reports why a name cannot be used, or nil. A name that could be read as a prefix of an
// id is refused, so that a selector never means two things.
func CheckName(name string) error {
	bad := func(msg string) error {
		return fault.New(fault.Invalid, "%s", msg).WithOp("name VM", name).
			WithHint("use 1 to 63 lower-case letters, digits and hyphens, starting with a letter, such as %q", "my-project")
	}
	switch {
	case name == "":
		return bad("the name is empty")
	case !namePattern.MatchString(name):
		return bad("it is not a valid host name")
	case len(name) <= idDigits && strings.Trim(name, "0123456789abcdef") == "" && strings.ContainsAny(name, "0123456789"):
		return bad("it looks like an id")
	case name == "localhost":
		return bad("it is the host's own name for itself")
	}
	return nil
}

var (
	adjectives = strings.Fields(`able agile amber apt azure bold brave bright brisk calm clear clever cosy crisp dapper
		deft eager early easy fair fleet fond fresh gentle glad golden grand green happy hardy honest humble jolly
		keen kind lively loyal lucky mellow merry mild neat nimble noble open plucky proud quick quiet rapid ready
		rosy sage sharp silver smart snug solid spry steady still sunny swift tidy true vivid warm wise witty`)
	animals = strings.Fields(`badger beaver bison crane crow curlew deer dove duck eagle egret elk falcon ferret finch
		fox gecko goose grouse hare hawk heron horse ibex jay kestrel kite koala lark lemur linnet llama lynx magpie
		marmot marten mole moose moth newt ocelot osprey otter owl panda petrel pika plover puffin quail rabbit raven
		robin seal shrew skylark snipe sparrow stoat stork swan swift tern thrush tit trout turtle vole weasel whale
		wolf wren yak`)
)

// RandomName returns a readable name such as "brisk-otter". It is not unique: the caller checks.
func RandomName() string {
	return adjectives[rand.IntN(len(adjectives))] + "-" + animals[rand.IntN(len(animals))] //nolint:gosec // names need no secrecy
}

var labelPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9._/-]{0,62}[a-z0-9])?$`)

// CheckLabels bounds labels: keys like host names, values of printable text up to 256 bytes.
func CheckLabels(labels map[string]string) error {
	if len(labels) > 64 {
		return fault.New(fault.Invalid, "there are %d labels, at most 64 are allowed", len(labels)).WithOp("label VM", "")
	}
	for k, v := range labels {
		if !labelPattern.MatchString(k) {
			return fault.New(fault.Invalid, "the key is not valid").WithOp("label VM", k).
				WithHint("use lower-case letters, digits, '.', '_', '/' and '-', at most 64")
		}
		if len(v) > 256 || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fault.New(fault.Invalid, "the value is too long or has control characters").WithOp("label VM", k).
				WithHint("use at most 256 bytes of printable text")
		}
	}
	return nil
}
