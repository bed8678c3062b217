package sshserver

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// The modes of a terminal, by their opcodes in RFC 4254, section 8, and RFC 8160. Speeds, parity and what else concerns a line that
// there is not are left out.
var (
	characters = map[byte]int{
		1: unix.VINTR, 2: unix.VQUIT, 3: unix.VERASE, 4: unix.VKILL, 5: unix.VEOF, 6: unix.VEOL, 7: unix.VEOL2, 8: unix.VSTART, 9: unix.VSTOP,
		10: unix.VSUSP, 12: unix.VREPRINT, 13: unix.VWERASE, 14: unix.VLNEXT, 18: unix.VDISCARD,
	}
	inputFlags = map[byte]uint32{
		33: unix.ISTRIP, 34: unix.INLCR, 35: unix.IGNCR, 36: unix.ICRNL, 37: unix.IUCLC, 38: unix.IXON, 39: unix.IXANY, 40: unix.IXOFF, 41: unix.IMAXBEL,
		42: unix.IUTF8,
	}
	localFlags = map[byte]uint32{
		50: unix.ISIG, 51: unix.ICANON, 52: unix.XCASE, 53: unix.ECHO, 54: unix.ECHOE, 55: unix.ECHOK, 56: unix.ECHONL, 57: unix.NOFLSH, 58: unix.TOSTOP,
		59: unix.IEXTEN, 60: unix.ECHOCTL, 61: unix.ECHOKE, 62: unix.PENDIN,
	}
	outputFlags = map[byte]uint32{70: unix.OPOST, 71: unix.OLCUC, 72: unix.ONLCR, 73: unix.OCRNL, 74: unix.ONOCR, 75: unix.ONLRET}
)

// noCharacter is how a client says that nothing has a terminal's function.
const noCharacter = 255

// firstUndefined is from which opcode on nobody knows how long an argument is.
const firstUndefined = 160

// setModes gives a terminal those of the client's. A client that says nothing of it has letters of more than one byte.
func setModes(fd int, modes string) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag |= unix.IUTF8
	applyModes(t, []byte(modes))
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}

func applyModes(t *unix.Termios, modes []byte) {
	for len(modes) >= 5 && modes[0] != 0 && modes[0] < firstUndefined {
		opcode, value := modes[0], binary.BigEndian.Uint32(modes[1:5])
		modes = modes[5:]
		if c, ok := characters[opcode]; ok {
			t.Cc[c] = byte(value)
			if value == noCharacter {
				t.Cc[c] = 0
			}
			continue
		}
		for field, flags := range map[*uint32]map[byte]uint32{&t.Iflag: inputFlags, &t.Lflag: localFlags, &t.Oflag: outputFlags} {
			if f, ok := flags[opcode]; ok && value != 0 {
				*field |= f
			} else if ok {
				*field &^= f
			}
		}
	}
}
