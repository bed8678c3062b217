package server

import "net"

// HungUp is hungUp.
func HungUp(conn net.Conn) bool { return hungUp(conn) }

// LastLines is lastLines.
func LastLines(text []byte, lines int) []byte { return lastLines(text, lines) }
