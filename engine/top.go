package engine

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"

	"hull/errdef"
)

// Top is a table of a container's processes, as ps prints it.
type Top struct {
	Titles    []string
	Processes [][]string
}

// Top lists the processes of a running container with the columns that psArgs asks for; "" is -ef. Everything is read
// from /proc: neither the host nor the container needs a ps, and none that a container brought is run. Pids are the
// host's, users are those inside.
func (e *Engine) Top(ctx context.Context, name, psArgs string) (*Top, error) {
	format, err := parsePS(psArgs)
	if err != nil {
		return nil, err
	}
	c, err := e.get(ctx, name)
	if err != nil {
		return nil, err
	}
	if !c.Running() {
		return nil, notRunning(c.ID)
	}
	pids, err := e.pids(c)
	if err != nil {
		return nil, err
	}
	host := readHostFacts()
	t := &Top{Processes: [][]string{}}
	for _, f := range format {
		t.Titles = append(t.Titles, f.title)
	}
	for _, pid := range pids {
		p, ok := readProcess(pid)
		if !ok { // ended meanwhile
			continue
		}
		p.host = host
		row := make([]string, len(format))
		for i, f := range format {
			row[i] = f.value(p)
		}
		t.Processes = append(t.Processes, row)
	}
	e.containerEvent(c, "top")
	return t, nil
}

// pids are the processes of a running container, ascending: those of its cgroup. An ordinary user's container has none;
// its processes are those that see no more processes than its first one does.
func (e *Engine) pids(c *Container) ([]int, error) {
	g, err := e.group(c)
	if err != nil {
		return nil, err
	}
	if g.Exists() {
		return g.Pids()
	}
	ns, err := os.Readlink(procOf(c.State.Pid) + "ns/pid")
	if isMissing(err) {
		return nil, notRunning(c.ID)
	}
	if err != nil {
		return nil, err
	}
	if own, _ := os.Readlink("/proc/self/ns/pid"); own == ns {
		return nil, errdef.Unavailable("container %s shares the host's processes and has no cgroup, so which are its own is not known", c.ID[:12])
	}
	names, err := readNames("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		if other, err := os.Readlink(procOf(pid) + "ns/pid"); err == nil && other == ns {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

func procOf(pid int) string { return "/proc/" + strconv.Itoa(pid) + "/" }

// psColumn is one column of the table.
type psColumn struct {
	title string
	value func(*process) string
}

// psFull and psLong are the columns of -f and of BSD's u.
const (
	psFull = "user=UID pid ppid c stime tname=TTY time cmd"
	psUser = "user pid pcpu pmem vsz rss tname=TTY stat start=START bsdtime=TIME command"
	psLong = "f=F s=S uid pid ppid c pri ni addr=ADDR sz wchan tname=TTY time comm=CMD"
)

// parsePS reads the options of ps that choose columns. Which processes are listed is not theirs to say; options that
// only do that are accepted without effect.
func parsePS(args string) ([]psColumn, error) {
	words := strings.Fields(args)
	list, chosen := "", ""
	for i := 0; i < len(words); i++ {
		w := words[i]
		name, value, hasValue := strings.Cut(w, "=")
		switch {
		case name == "--format" || name == "--sort" || name == "--cols" || name == "--columns" || name == "--width":
			if !hasValue {
				if i++; i == len(words) {
					return nil, errdef.Invalid("ps: %s needs a value", w)
				}
				value = words[i]
			}
			if name == "--format" {
				chosen = strings.TrimPrefix(chosen+","+value, ",")
			}
			continue
		case strings.HasPrefix(w, "--"):
			switch w {
			case "--headers", "--forest", "--everyone", "--no-headers":
				continue
			}
			return nil, unknownPS(w)
		}
		bsd := !strings.HasPrefix(w, "-")
		for j, letter := range strings.TrimPrefix(w, "-") {
			switch letter {
			case 'e', 'A', 'a', 'd', 'x', 'w', 'H', 'N', 'r', 'g', 'T', 'c', 'y', 'M', 'k':
			case 'f':
				if !bsd {
					list = psFull
				}
			case 'F':
				list = psFull
			case 'l':
				list = psLong
			case 'u':
				list = psUser
			case 'o', 'O':
				value := strings.TrimPrefix(w, "-")[j+1:]
				if value == "" {
					if i++; i == len(words) {
						return nil, errdef.Invalid("ps: -o needs a list of columns")
					}
					value = words[i]
				}
				if letter == 'O' {
					value = "pid," + value + ",s,tname=TTY,time,command"
				}
				chosen = strings.TrimPrefix(chosen+","+value, ",")
				goto next
			default:
				return nil, unknownPS("-" + string(letter))
			}
		}
	next:
	}
	switch {
	case chosen != "":
		list = chosen
	case list == "" && args == "":
		list = psFull
	case list == "":
		list = "pid tname=TTY time cmd"
	}
	return psColumns(list)
}

func unknownPS(option string) error {
	return errdef.Invalid("ps option %s is not understood: Hull reads /proc itself and knows -ef, -l, aux and -o with names of columns", clip(option))
}

// psColumns reads "pid,comm=NAME,args", with spaces or commas in between.
func psColumns(list string) ([]psColumn, error) {
	var out []psColumn
	pid := false
	for w := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ',' || r == ' ' }) {
		name, title, titled := strings.Cut(w, "=")
		c, ok := psColumnOf(name)
		if !ok {
			return nil, errdef.Invalid("ps: unknown column %q", clip(name))
		}
		if titled {
			c.title = title
		}
		pid = pid || c.title == "PID"
		out = append(out, c)
	}
	if !pid { // Docker, which needs it to find its processes, refuses this too
		return nil, errdef.Invalid("Couldn't find PID field in ps output")
	}
	return out, nil
}

// psColumnOf is the column ps calls so.
func psColumnOf(name string) (psColumn, bool) {
	switch name {
	case "pid", "tgid":
		return psColumn{"PID", func(p *process) string { return strconv.Itoa(p.pid) }}, true
	case "ppid":
		return psColumn{"PPID", func(p *process) string { return p.stat(statPpid) }}, true
	case "pgid", "pgrp":
		return psColumn{"PGID", func(p *process) string { return p.stat(statPgrp) }}, true
	case "sid", "sess", "session":
		return psColumn{"SID", func(p *process) string { return p.stat(statSession) }}, true
	case "user", "euser", "uname", "ruser":
		return psColumn{strings.ToUpper(strings.TrimPrefix(name, "uname")), (*process).user}, true
	case "uid", "euid", "ruid":
		return psColumn{strings.ToUpper(name), func(p *process) string { return strconv.FormatUint(uint64(p.uid), 10) }}, true
	case "gid", "egid", "rgid":
		return psColumn{strings.ToUpper(name), func(p *process) string { return strconv.FormatUint(uint64(p.gid), 10) }}, true
	case "group", "egroup", "rgroup":
		return psColumn{strings.ToUpper(name), (*process).group}, true
	case "huser", "huid": // Podman's words
		return psColumn{"HUSER", func(p *process) string { return p.status("Uid") }}, true
	case "hpid":
		return psColumn{"HPID", func(p *process) string { return strconv.Itoa(p.pid) }}, true
	case "nspid", "cpid":
		return psColumn{"NSPID", (*process).inside}, true
	case "comm", "ucmd", "ucomm":
		return psColumn{"COMMAND", func(p *process) string { return p.comm }}, true
	case "cmd":
		return psColumn{"CMD", (*process).command}, true
	case "args", "command":
		return psColumn{"COMMAND", (*process).command}, true
	case "c":
		return psColumn{"C", func(p *process) string { return strconv.Itoa(int(p.share())) }}, true
	case "pcpu", "%cpu", "cp":
		return psColumn{"%CPU", func(p *process) string { return oneDigit(p.share()) }}, true
	case "pmem", "%mem":
		return psColumn{"%MEM", (*process).memoryShare}, true
	case "vsz", "vsize":
		return psColumn{"VSZ", func(p *process) string { return strconv.FormatUint(p.number(statVsize)/1024, 10) }}, true
	case "rss", "rssize", "rsz":
		return psColumn{"RSS", func(p *process) string { return strconv.FormatUint(p.rss()/1024, 10) }}, true
	case "sz":
		return psColumn{"SZ", func(p *process) string { return strconv.FormatUint(p.number(statVsize)/pageSize, 10) }}, true
	case "s", "state":
		return psColumn{"S", func(p *process) string { return p.stat(statState) }}, true
	case "stat":
		return psColumn{"STAT", (*process).longState}, true
	case "tty", "tt", "tname":
		return psColumn{"TT", (*process).tty}, true
	case "time", "cputime":
		return psColumn{"TIME", func(p *process) string { return longTime(p.used()) }}, true
	case "bsdtime":
		return psColumn{"TIME", func(p *process) string { return shortTime(p.used()) }}, true
	case "etime":
		return psColumn{"ELAPSED", func(p *process) string { return elapsed(p.age()) }}, true
	case "etimes":
		return psColumn{"ELAPSED", func(p *process) string { return strconv.FormatInt(int64(p.age().Seconds()), 10) }}, true
	case "stime", "start", "start_time", "bsdstart":
		return psColumn{strings.ToUpper(strings.TrimSuffix(name, "_time")), (*process).startTime}, true
	case "lstart":
		return psColumn{"STARTED", func(p *process) string { return p.begun().Format("Mon Jan _2 15:04:05 2006") }}, true
	case "ni", "nice":
		return psColumn{"NI", func(p *process) string { return p.stat(statNice) }}, true
	case "pri":
		return psColumn{"PRI", (*process).priority}, true
	case "nlwp", "thcount":
		return psColumn{"NLWP", func(p *process) string { return p.stat(statThreads) }}, true
	case "psr":
		return psColumn{"PSR", func(p *process) string { return p.stat(statProcessor) }}, true
	case "wchan":
		return psColumn{"WCHAN", (*process).wchan}, true
	case "cgroup":
		return psColumn{"CGROUP", (*process).cgroups}, true
	case "seccomp":
		return psColumn{"SECCOMP", func(p *process) string { return p.status("Seccomp") }}, true
	case "label":
		return psColumn{"LABEL", func(p *process) string { return p.line("attr/current") }}, true
	case "f", "flag", "flags":
		return psColumn{"F", (*process).flags}, true
	case "addr":
		return psColumn{"ADDR", func(*process) string { return "-" }}, true
	}
	return psColumn{}, false
}
