// Command banger-lab builds and runs the lab: the project's own test host.
package main

import (
	"fmt"
	"os"

	"banger/internal/lab"
	"banger/internal/lab/labcmd"
)

func main() {
	if os.Getpid() == 1 {
		err := lab.Init()
		fmt.Fprintln(os.Stderr, "lab init:", err)
		os.Exit(1) // PID 1's end is a kernel panic, which ends the emulator
	}
	os.Exit(labcmd.Main(os.Args[1:]))
}
