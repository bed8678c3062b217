// Command banger-lab builds and runs the lab: the project's own test host.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"banger/internal/lab"
	"banger/internal/lab/labcmd"
	"banger/internal/lab/standin"
)

func main() {
	if os.Getpid() == 1 {
		err := lab.Init()
		fmt.Fprintln(os.Stderr, "lab init:", err)
		os.Exit(1) // PID 1's end is a kernel panic, which ends the emulator
	}
	if filepath.Base(os.Args[0]) == standin.Name {
		os.Exit(standin.Main(os.Args[1:]))
	}
	os.Exit(labcmd.Main(os.Args[1:]))
}
