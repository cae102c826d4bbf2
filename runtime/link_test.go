package runtime

import (
	"bytes"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for s, want := range map[string]struct {
		ip   []byte
		bits int
	}{
		"172.24.0.2/16":            {[]byte{172, 24, 0, 2}, 16},
		"172.24.0.1":               {[]byte{172, 24, 0, 1}, 32},
		"fd00:1:0:0:0:0:ac18:2/64": {[]byte{0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0xac, 0x18, 0, 2}, 64},
	} {
		if ip, bits, err := parseAddress(s); err != nil || !bytes.Equal(ip, want.ip) || bits != want.bits {
			t.Errorf("%s: %v/%d, %v", s, ip, bits, err)
		}
	}
	for _, s := range []string{"", "1.2.3", "1.2.3.256", "1.2.3.4/33", "1.2.3.4/-1", "1.2.3.4/", "fd00::1", "1:2:3:4:5:6:7:8/129", "a.b.c.d"} {
		if ip, bits, err := parseAddress(s); err == nil {
			t.Errorf("%q: %v/%d", s, ip, bits)
		}
	}
	if got := lastOf([]byte{172, 24, 0, 2}, 16); !bytes.Equal(got, []byte{172, 24, 255, 255}) {
		t.Errorf("broadcast %v", got)
	}
	for _, s := range []string{"", "02:42:ac:18:00", "02:42:ac:18:00:2x", "02:42:ac:18:00:02:03"} {
		if _, err := parseMAC(s); err == nil {
			t.Errorf("%q is taken for a MAC address", s)
		}
	}
}
