package engine

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is one of the host, as /proc/PID shows it. What a process calls itself is its own to choose: texts are cut at
// a length and hold no line breaks.
type process struct {
	pid      int
	uid, gid uint32 // effective, inside the process's user namespace
	comm     string
	fields   []string // of /proc/PID/stat, from the state on
	host     *hostFacts
}

// Fields of /proc/PID/stat, proc_pid_stat(5), counted from the state, which is the third.
const (
	statState     = 0
	statPpid      = 1
	statPgrp      = 2
	statSession   = 3
	statTTY       = 4
	statTpgid     = 5
	statFlags     = 6
	statUser      = 11
	statSystem    = 12
	statPriority  = 15
	statNice      = 16
	statThreads   = 17
	statStart     = 19
	statVsize     = 20
	statRSS       = 21
	statProcessor = 36
)

// userHZ is what times in /proc/PID/stat are counted in, on every architecture of Linux that Go runs on.
const userHZ = 100

const pageSize = 4096

// maxCommand is how much of a command line is shown, in bytes.
const maxCommand = 4096

// hostFacts are what all processes of one listing are measured against.
type hostFacts struct {
	now    time.Time
	boot   time.Time
	memory uint64 // bytes
	names  map[string]string
}

func readHostFacts() *hostFacts {
	h := &hostFacts{now: time.Now(), names: map[string]string{}}
	var up unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &up) == nil {
		h.boot = h.now.Add(-time.Duration(up.Nano()))
	}
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) == nil {
		h.memory = uint64(si.Totalram) * uint64(si.Unit)
	}
	return h
}

// readProcess reads the process pid; ok is false when it has ended.
func readProcess(pid int) (p *process, ok bool) {
	p = &process{pid: pid}
	stat, err := os.ReadFile(procOf(pid) + "stat")
	if err != nil {
		return nil, false
	}
	// The name may hold anything, parentheses and spaces too.
	open, shut := strings.IndexByte(string(stat), '('), strings.LastIndexByte(string(stat), ')')
	if open < 0 || shut < open {
		return nil, false
	}
	p.comm = oneLine(string(stat[open+1:shut]), maxCommand)
	if p.fields = strings.Fields(string(stat[shut+1:])); len(p.fields) <= statProcessor {
		return nil, false
	}
	p.uid, p.gid = p.id("Uid", "uid_map"), p.id("Gid", "gid_map")
	return p, true
}

func (p *process) stat(field int) string { return p.fields[field] }

func (p *process) number(field int) uint64 {
	n, _ := strconv.ParseUint(p.fields[field], 10, 64)
	return n
}

// status is the first word of a line of /proc/PID/status; of ids the second, which is the effective one.
func (p *process) status(key string) string {
	b, _ := os.ReadFile(procOf(p.pid) + "status")
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(line, ":")
		if f := strings.Fields(v); k == key && len(f) > 0 {
			if len(f) == 4 && (key == "Uid" || key == "Gid") {
				return f[1]
			}
			return f[0]
		}
	}
	return "-"
}

// id is an id of the process in its own user namespace.
func (p *process) id(key, idMap string) uint32 {
	n, err := strconv.ParseUint(p.status(key), 10, 32)
	if err != nil {
		return overflowID
	}
	b, _ := os.ReadFile(procOf(p.pid) + idMap)
	for line := range strings.Lines(string(b)) {
		var inside, outside, count uint64
		if _, err := fmt.Sscan(line, &inside, &outside, &count); err == nil && n >= outside && n-outside < count {
			return uint32(inside + n - outside)
		}
	}
	return uint32(n)
}

// overflowID is whom the kernel shows where an id has no mapping.
const overflowID = 65534

// user is the name this host has for the user id, or the number: what the container calls it is for the container to say.
func (p *process) user() string {
	return p.name("u", p.uid, func(id string) (string, error) {
		u, err := user.LookupId(id)
		if err != nil {
			return "", err
		}
		return u.Username, nil
	})
}

func (p *process) group() string {
	return p.name("g", p.gid, func(id string) (string, error) {
		g, err := user.LookupGroupId(id)
		if err != nil {
			return "", err
		}
		return g.Name, nil
	})
}

func (p *process) name(kind string, n uint32, look func(string) (string, error)) string {
	id := strconv.FormatUint(uint64(n), 10)
	if name, ok := p.host.names[kind+id]; ok {
		return name
	}
	name, err := look(id)
	if err != nil {
		name = id
	}
	p.host.names[kind+id] = name
	return name
}

// command is the command line; of a process that has none, such as one that has ended, the name in brackets.
func (p *process) command() string {
	b, err := os.ReadFile(procOf(p.pid) + "cmdline")
	if err != nil || len(b) == 0 {
		if p.stat(statState) == "Z" {
			return "[" + p.comm + "] <defunct>"
		}
		return "[" + p.comm + "]"
	}
	return oneLine(strings.TrimRight(strings.ReplaceAll(string(b), "\x00", " "), " "), maxCommand)
}

// oneLine cuts s at n bytes and writes control characters, which would end a line or command a terminal, as ?.
func oneLine(s string, n int) string {
	s = strings.ToValidUTF8(s[:min(len(s), n)], "?")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// used is the processor time.
func (p *process) used() time.Duration {
	return time.Duration(p.number(statUser)+p.number(statSystem)) * time.Second / userHZ
}

func (p *process) begun() time.Time {
	return p.host.boot.Add(time.Duration(p.number(statStart)) * time.Second / userHZ)
}

func (p *process) age() time.Duration { return max(p.host.now.Sub(p.begun()), 0) }

// share is the part of one processor that it used all its life, in percent.
func (p *process) share() float64 {
	if p.age() < time.Second/userHZ {
		return 0
	}
	return 100 * p.used().Seconds() / p.age().Seconds()
}

func (p *process) rss() uint64 { return p.number(statRSS) * uint64(os.Getpagesize()) }

func (p *process) memoryShare() string {
	if p.host.memory == 0 {
		return "-"
	}
	return oneDigit(100 * float64(p.rss()) / float64(p.host.memory))
}

func oneDigit(f float64) string { return strconv.FormatFloat(f, 'f', 1, 64) }

// startTime is a time of today, else a date.
func (p *process) startTime() string {
	t := p.begun()
	switch {
	case p.age() < 24*time.Hour:
		return t.Format("15:04")
	case t.Year() == p.host.now.Year():
		return t.Format("Jan02")
	}
	return t.Format("2006")
}

// tty names the controlling terminal: the number is that of the kernel, new_encode_dev.
func (p *process) tty() string {
	nr := p.number(statTTY)
	major, minor := nr>>8&0xfff, nr&0xff|nr>>12&0xfff00
	switch {
	case nr == 0:
		return "?"
	case major >= 136 && major <= 143:
		return "pts/" + strconv.FormatUint((major-136)*256+minor, 10)
	case major == 4 && minor < 64:
		return "tty" + strconv.FormatUint(minor, 10)
	case major == 4:
		return "ttyS" + strconv.FormatUint(minor-64, 10)
	}
	return strconv.FormatUint(major, 10) + ":" + strconv.FormatUint(minor, 10)
}

// longState is the state with ps's letters for more: niced, leader of a session, threads, in the foreground.
func (p *process) longState() string {
	s := p.stat(statState)
	switch nice := p.stat(statNice); {
	case strings.HasPrefix(nice, "-"):
		s += "<"
	case nice != "0":
		s += "N"
	}
	if p.stat(statSession) == strconv.Itoa(p.pid) {
		s += "s"
	}
	if p.number(statThreads) > 1 {
		s += "l"
	}
	if p.stat(statTpgid) == p.stat(statPgrp) {
		s += "+"
	}
	return s
}

// priority as ps -l shows it: larger is more urgent.
func (p *process) priority() string {
	n, _ := strconv.Atoi(p.stat(statPriority))
	return strconv.Itoa(60 + n)
}

func (p *process) flags() string { return strconv.FormatUint(p.number(statFlags)>>6&0x7, 10) }

func (p *process) wchan() string {
	if w := p.line("wchan"); w != "0" {
		return w
	}
	return "-"
}

// line is the first line of a file below /proc/PID, "-" when there is none.
func (p *process) line(name string) string {
	b, err := os.ReadFile(filepath.Join(procOf(p.pid), name))
	first, _, _ := strings.Cut(strings.TrimRight(string(b), "\x00"), "\n")
	if err != nil || first == "" {
		return "-"
	}
	return oneLine(first, maxCommand)
}

func (p *process) cgroups() string {
	b, _ := os.ReadFile(procOf(p.pid) + "cgroup")
	return oneLine(strings.ReplaceAll(strings.TrimSpace(string(b)), "\n", ","), maxCommand)
}

// inside is the pid that the process has for itself.
func (p *process) inside() string {
	b, _ := os.ReadFile(procOf(p.pid) + "status")
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "NSpid:"); ok {
			f := strings.Fields(v)
			if len(f) > 0 {
				return f[len(f)-1]
			}
		}
	}
	return "-"
}

// longTime is [DD-]HH:MM:SS.
func longTime(d time.Duration) string {
	s := int(d.Seconds())
	text := fmt.Sprintf("%02d:%02d:%02d", s/3600%24, s/60%60, s%60)
	if days := s / 86400; days > 0 {
		return fmt.Sprintf("%d-%s", days, text)
	}
	return text
}

// shortTime is M:SS.
func shortTime(d time.Duration) string {
	s := int(d.Seconds())
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// elapsed is [[DD-]HH:]MM:SS.
func elapsed(d time.Duration) string {
	if d < time.Hour {
		s := int(d.Seconds())
		return fmt.Sprintf("%02d:%02d", s/60, s%60)
	}
	return longTime(d)
}
