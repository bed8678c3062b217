package machine

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"banger/internal/agent"
	"banger/internal/agent/network"
	"banger/internal/agent/settings"
	"banger/internal/agentproto"
)

// Sync writes everything to the disks.
func (m *Machine) Sync() { unix.Sync() }

// Reseed gives the kernel entropy and has its generator start from it at once.
func (m *Machine) Reseed(entropy []byte) error {
	f, err := os.OpenFile("/dev/urandom", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info := poolInfo(entropy)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&info[0]))); errno != 0 { //nolint:gosec // the ioctl takes a pointer
		return fmt.Errorf("add entropy: %w", errno)
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.RNDRESEEDCRNG, 0); errno != 0 {
		return fmt.Errorf("seed the random numbers anew: %w", errno)
	}
	return nil
}

// poolInfo is a struct rand_pool_info of the kernel's include/uapi/linux/random.h: how many bits the entropy is worth,
// and its bytes.
func poolInfo(entropy []byte) []byte {
	info := binary.NativeEndian.AppendUint32(nil, uint32(8*len(entropy)))
	info = binary.NativeEndian.AppendUint32(info, uint32(len(entropy)))
	return append(info, entropy...)
}

// Adopt makes the machine the one that cfg describes, as a boot would. Somebody waits for it, and most of it is itself
// waiting, for disks and for the kernel to let go of the old network: so that is done side by side.
func (m *Machine) Adopt(ctx context.Context, cfg agentproto.GuestConfig) error {
	root, err := os.OpenRoot("/")
	if err != nil {
		return fmt.Errorf("%w: %w", agent.ErrOthers, err)
	}
	defer root.Close()
	parts := []func() error{func() error {
		return restartsResolved(root, func() error {
			if err := settings.Write(root, cfg); err != nil {
				return fmt.Errorf("%w: %w", agent.ErrOthers, err)
			}
			return nil
		})
	}}
	if cfg.Hostname != "" {
		parts = append(parts, func() error { return setHostname(cfg.Hostname) })
	}
	if cfg.Network != nil {
		parts = append(parts, func() error { return network.Change(*cfg.Network) })
	}
	errs := make([]error, len(parts))
	var wg sync.WaitGroup
	for i, part := range parts {
		wg.Go(func() { errs[i] = part() })
	}
	wg.Wait()
	if err := reloadSSH(ctx); err != nil { // last: it reads what was written, and listens on new addresses
		errs = append(errs, fmt.Errorf("%w: %w", agent.ErrOthers, err))
	}
	return errors.Join(errs...)
}

// identityFile outlives the server, not the boot.
const identityFile = "run/banger-agent/identity"

// Keep remembers who the agent is now: the environment of its supervisor still says who it was.
func (m *Machine) Keep(identity agent.Identity) error {
	root, err := os.OpenRoot("/")
	if err != nil {
		return err
	}
	defer root.Close()
	return keep(root, identity)
}

func keep(root *os.Root, identity agent.Identity) error {
	text, err := json.Marshal(identity)
	if err != nil {
		return err
	}
	return settings.Secret(root, identityFile, string(text))
}

// Kept is the identity that was kept in this boot, or else the one that it began with.
func Kept(begun agent.Identity) (agent.Identity, error) {
	root, err := os.OpenRoot("/")
	if err != nil {
		return begun, err
	}
	defer root.Close()
	return kept(root, begun)
}

func kept(root *os.Root, begun agent.Identity) (agent.Identity, error) {
	text, err := root.ReadFile(identityFile)
	if errors.Is(err, fs.ErrNotExist) {
		return begun, nil
	}
	if err != nil {
		return begun, err
	}
	var now agent.Identity
	if err := json.Unmarshal(text, &now); err != nil {
		return begun, fmt.Errorf("/%s: %w", identityFile, err)
	}
	return now, nil
}
