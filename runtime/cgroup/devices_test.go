package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func deny() specs.LinuxDeviceCgroup { return specs.LinuxDeviceCgroup{Allow: false, Access: "rwm"} }

func dev(allow bool, kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
	d := specs.LinuxDeviceCgroup{Allow: allow, Type: kind, Access: access}
	if major >= 0 {
		d.Major = &major
	}
	if minor >= 0 {
		d.Minor = &minor
	}
	return d
}

// list renders what v1 is told: the default, then its exceptions, without those that every container has.
func v1List(t *testing.T, devices ...specs.LinuxDeviceCgroup) (string, error) {
	t.Helper()
	rules, err := parseRules(devices)
	if err != nil {
		t.Fatal(err)
	}
	l := deviceList{}
	for _, r := range rules[:len(rules)-len(defaultDevices())] {
		if err := l.apply(r); err != nil {
			return "", err
		}
	}
	s := fmt.Sprint(l.allow)
	for _, e := range l.exceptions {
		s += "; " + e.String()
	}
	return s, nil
}

func TestV1Rules(t *testing.T) {
	for _, tt := range []struct {
		name    string
		devices []specs.LinuxDeviceCgroup
		want    string // "" for a refusal
	}{
		{"nothing said is nothing allowed", nil, "false"},
		{"privileged", []specs.LinuxDeviceCgroup{dev(true, "a", -1, -1, "rwm")}, "true"},
		{"accesses add up", []specs.LinuxDeviceCgroup{deny(), dev(true, "c", 1, 3, "r"), dev(true, "c", 1, 3, "w")}, "false; c 1:3 rw"},
		{"taken back", []specs.LinuxDeviceCgroup{deny(), dev(true, "c", 1, 3, "rw"), dev(false, "c", 1, 3, "w")}, "false; c 1:3 r"},
		{"taken back by a wildcard", []specs.LinuxDeviceCgroup{deny(), dev(true, "c", 1, 3, "rw"), dev(false, "c", 1, -1, "rw")}, "false"},
		{"denied although never allowed", []specs.LinuxDeviceCgroup{deny(), dev(false, "c", 10, 229, "rwm")}, "false"},
		{"part of the accesses of all", []specs.LinuxDeviceCgroup{deny(), dev(true, "a", -1, -1, "m")}, "false; b *:* m; c *:* m"},
		{"all but one", []specs.LinuxDeviceCgroup{dev(true, "a", -1, -1, "rwm"), dev(false, "b", 8, -1, "rwm")}, "true; b 8:* rwm"},
		{"a hole in a wildcard", []specs.LinuxDeviceCgroup{deny(), dev(true, "c", 1, -1, "rw"), dev(false, "c", 1, 1, "rw")}, ""},
	} {
		got, err := v1List(t, tt.devices...)
		if (err != nil) != (tt.want == "") || got != tt.want {
			t.Errorf("%s: got %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
}

// interpret runs the program on a request like the kernel does.
func interpret(t *testing.T, p []insn, kind uint32, a access, major, minor uint32) bool {
	t.Helper()
	var r [11]uint32
	ctx := []uint32{uint32(a)<<16 | kind, major, minor}
	for pc := 0; pc < len(p); pc++ {
		i := p[pc]
		dst, src := i.regs&15, i.regs>>4
		switch i.code {
		case opLoadWord:
			r[dst] = ctx[i.off/4]
		case opMove:
			r[dst] = r[src]
		case opMoveImm:
			r[dst] = uint32(i.imm)
		case opAndImm:
			r[dst] &= uint32(i.imm)
		case opShiftImm:
			r[dst] >>= uint32(i.imm)
		case opJumpNotEqual:
			if r[dst] != uint32(i.imm) {
				pc += int(i.off)
			}
		case opJumpEqual:
			if r[dst] == uint32(i.imm) {
				pc += int(i.off)
			}
		case opExit:
			return r[0] == 1
		default:
			t.Fatalf("unknown instruction %#x", i.code)
		}
	}
	t.Fatal("the program does not end")
	return false
}

func TestDeviceProgram(t *testing.T) {
	const block, char = unix.BPF_DEVCG_DEV_BLOCK, unix.BPF_DEVCG_DEV_CHAR
	rules, err := parseRules([]specs.LinuxDeviceCgroup{
		deny(),
		dev(true, "c", 10, 200, "r"), dev(true, "c", 10, 200, "w"),
		dev(true, "b", 8, -1, "rwm"), dev(false, "b", 8, 1, "w"),
		dev(true, "c", 4294967294, 3000000000, "r"),
	})
	if err != nil {
		t.Fatal(err)
	}
	p := deviceProgram(rules)
	for _, tt := range []struct {
		what         string
		kind         uint32
		a            access
		major, minor uint32
		want         bool
	}{
		{"null", char, accRead | accWrite, 1, 3, true},
		{"mem", char, accRead, 1, 1, false},
		{"mknod of mem", char, accMknod, 1, 1, true},
		{"pts", char, accRead | accWrite, 136, 77, true},
		{"both by two rules", char, accRead | accWrite, 10, 200, true},
		{"fuse", char, accRead, 10, 229, false},
		{"disk", block, accRead | accWrite, 8, 0, true},
		{"partition, read", block, accRead, 8, 1, true},
		{"partition, write", block, accWrite, 8, 1, false},
		{"partition, both", block, accRead | accWrite, 8, 1, false},
		{"char 8:0 is not block 8:0", char, accRead, 8, 0, false},
		{"large numbers", char, accRead, 4294967294, 3000000000, true},
		{"large numbers, another", char, accRead, 4294967294, 3000000001, false},
	} {
		if got := interpret(t, p, tt.kind, tt.a, tt.major, tt.minor); got != tt.want {
			t.Errorf("%s: allowed %v, want %v", tt.what, got, tt.want)
		}
	}
}

// The kernel's view: a process in the group can open what is allowed and nothing else.
func TestDevicesReachTheKernel(t *testing.T) {
	for name, l := range layouts(t) {
		t.Run(name, func(t *testing.T) {
			g := mustMake(t, l, parent(t, l)+"/c", nil)
			dir := t.TempDir()
			for node, minor := range map[string]uint32{"null": 3, "mem": 1, "kmsg": 11} {
				if err := unix.Mknod(filepath.Join(dir, node), unix.S_IFCHR|0o600, int(unix.Mkdev(1, minor))); err != nil {
					t.Skip("cannot make device nodes here: ", err)
				}
			}
			opens := func(node string) bool {
				cmd := start(t, g, "exec 2>/dev/null; : < "+filepath.Join(dir, node))
				return cmd.Wait() == nil
			}
			if fd, err := os.Open(filepath.Join(dir, "kmsg")); err != nil {
				t.Skip("not even this process may read kmsg")
			} else {
				fd.Close()
			}
			if !opens("null") {
				t.Error("null does not open")
			}
			if opens("kmsg") {
				t.Error("kmsg opens although nothing allows it")
			}
			if _, err := g.Set(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{deny(), dev(true, "c", 1, 11, "r")}}); err != nil {
				t.Fatal(err)
			}
			if !opens("kmsg") {
				t.Error("kmsg does not open after it was allowed")
			}
			if _, err := g.Set(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{deny()}}); err != nil {
				t.Fatal(err)
			}
			if opens("kmsg") {
				t.Error("kmsg opens after it was denied again")
			}
			if strings.HasPrefix(name, "v2") {
				if _, err := g.Set(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{dev(true, "a", -1, -1, "rwm")}}); err != nil {
					t.Fatal(err)
				}
				if !opens("kmsg") {
					t.Error("kmsg does not open after all was allowed")
				}
			}
		})
	}
}
