// Package buildinfo tells which build this is. The linker fills it in:
//
//	-X banger/internal/buildinfo.version=0.1.0
//	-X banger/internal/buildinfo.commit=0123456789ab
//	-X banger/internal/buildinfo.stamp=1700000000
package buildinfo

import (
	"runtime"
	"strconv"
)

// Set by the linker.
var (
	version = "dev"
	commit  = "unknown"
	stamp   = "0"
)

// Info describes a build.
type Info struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Stamp   int64  `json:"stamp" doc:"seconds since 1970 of the commit, or of the build when its tree was not clean"`
	Go      string `json:"go"`
}

// Current returns this build.
func Current() Info {
	n, _ := strconv.ParseInt(stamp, 10, 64) // a build without a stamp is older than any other
	return Info{Version: version, Commit: commit, Stamp: n, Go: runtime.Version()}
}

// Newer reports whether a was made after b. Builds without a stamp never count as newer.
func Newer(a, b Info) bool { return a.Stamp > b.Stamp }

// String renders a build for people.
func (i Info) String() string { return i.Version + " (" + i.Commit + ")" }
