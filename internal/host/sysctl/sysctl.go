// Package sysctl reads and writes the kernel's settings, those of the network in the network namespace of the calling thread.
package sysctl

import (
	"os"
	"path/filepath"
	"strings"
)

// Get reads a setting by its name below /proc/sys, such as net/ipv4/ip_forward. What the kernel does not have is
// fs.ErrNotExist.
func Get(name string) (string, error) {
	text, err := os.ReadFile(path(name))
	return strings.TrimSpace(string(text)), err
}

// Set writes one.
func Set(name, value string) error { return os.WriteFile(path(name), []byte(value), 0) }

func path(name string) string { return filepath.Join("/proc/sys", name) }
