package agentproto_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger/internal/agentproto"
)

func frame(n uint32, body string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, n), body...)
}

func TestFrameRoundTrip(t *testing.T) {
	var buf bytes.Buffer
	sent := agentproto.FromAgent{Ready: &agentproto.Ready{Uptime: time.Second, Services: map[string]time.Duration{"ssh": time.Millisecond}}}
	if err := agentproto.WriteFrame(&buf, sent); err != nil {
		t.Fatal(err)
	}
	var got agentproto.FromAgent
	if err := agentproto.ReadFrame(&buf, &got, agentproto.MaxFromAgent); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(sent, got); d != "" {
		t.Error(d)
	}
	if err := agentproto.ReadFrame(&buf, &got, agentproto.MaxFromAgent); !errors.Is(err, io.EOF) {
		t.Errorf("after the last frame: %v, want io.EOF", err)
	}
}

func TestReadFrameErrors(t *testing.T) {
	tests := []struct {
		name string
		in   []byte
		want string
	}{
		{"cut length", []byte{0, 0}, "unexpected EOF"},
		{"length and nothing", frame(3, ""), "read frame: unexpected EOF"},
		{"cut body", frame(30, `{"hello"`), "read frame: unexpected EOF"},
		{"too large", frame(65, strings.Repeat(" ", 65)), "frame is larger than the protocol allows"},
		{"larger than an int32", frame(1<<32-1, ""), "frame is larger than the protocol allows"},
		{"not JSON", frame(2, "{]"), "decode frame: invalid character ']' looking for beginning of object key string"},
		{"wrong type", frame(4, `"hi"`), "decode frame: json: cannot unmarshal string into Go value of type agentproto.FromAgent"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var f agentproto.FromAgent
			err := agentproto.ReadFrame(bytes.NewReader(tt.in), &f, 64)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestWriteFrameTooLarge(t *testing.T) {
	err := agentproto.WriteFrame(io.Discard, strings.Repeat("x", agentproto.MaxFromHost))
	if !errors.Is(err, agentproto.ErrFrameTooLarge) {
		t.Errorf("got %v", err)
	}
}

// An agent one release newer sends fields that we do not know.
func TestUnknownFieldsAreIgnored(t *testing.T) {
	var f agentproto.FromAgent
	body := `{"hello":{"min_version":1,"max_version":2,"colour":"red"},"later":{}}`
	if err := agentproto.ReadFrame(bytes.NewReader(frame(uint32(len(body)), body)), &f, 1<<10); err != nil {
		t.Fatal(err)
	}
	if f.Hello == nil || f.Hello.MaxVersion != 2 {
		t.Errorf("got %+v", f.Hello)
	}
}

func TestNegotiate(t *testing.T) {
	tests := []struct {
		lo, hi, want int
		err          string
	}{
		{1, 1, 1, ""},
		{1, 9, 1, ""},
		{0, 1, 1, ""},
		{2, 9, 0, "the peer speaks protocol versions 2 to 9, this build 1 to 1"},
		{0, 0, 0, "the peer speaks protocol versions 0 to 0, this build 1 to 1"},
		{9, -9, 0, "the peer speaks protocol versions 9 to -9, this build 1 to 1"},
	}
	for _, tt := range tests {
		got, err := agentproto.Negotiate(tt.lo, tt.hi)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if got != tt.want || text != tt.err {
			t.Errorf("Negotiate(%d, %d) = %d, %q; want %d, %q", tt.lo, tt.hi, got, text, tt.want, tt.err)
		}
	}
}

// Whatever arrives, ReadFrame reads no further than the frame and takes no more than its limit.
func FuzzReadFrame(f *testing.F) {
	f.Add(frame(2, "{}"))
	f.Add(frame(26, `{"ready":{"uptime":12345}}`))
	f.Add(frame(1<<31, "x"))
	f.Fuzz(func(t *testing.T, in []byte) {
		const limit = 1 << 10
		r := bytes.NewReader(in)
		var v agentproto.FromAgent
		err := agentproto.ReadFrame(r, &v, limit)
		read := len(in) - r.Len()
		if read > 4+limit {
			t.Errorf("read %d bytes", read)
		}
		if err == nil && uint32(read-4) != binary.BigEndian.Uint32(in) {
			t.Errorf("read %d bytes of a frame of %d", read-4, binary.BigEndian.Uint32(in))
		}
	})
}
