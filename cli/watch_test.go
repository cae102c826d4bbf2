package cli

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/moby/moby/api/types/container"
)

// sampled is a row with two samples behind it: it used cpu percent of one of two processors, and memory of 1 GiB.
func sampled(name string, cpu float64, memory uint64) *statsRow {
	at := func(used, whole float64) container.StatsResponse {
		return container.StatsResponse{
			ID: strings.Repeat("ab", 32), Name: "/" + name, Read: time.Unix(1, 0),
			CPUStats: container.CPUStats{CPUUsage: container.CPUUsage{TotalUsage: uint64(used)}, SystemUsage: uint64(whole), OnlineCPUs: 2},
			MemoryStats: container.MemoryStats{
				Usage: memory + 4096, Limit: 1 << 30, Stats: map[string]uint64{"inactive_file": 4096},
			},
			Networks: map[string]container.NetworkStats{"eth0": {RxBytes: 1000, TxBytes: 2000}, "eth1": {RxBytes: 500}},
			BlkioStats: container.BlkioStats{IoServiceBytesRecursive: []container.BlkioStatEntry{
				{Op: "Read", Value: 7000}, {Op: "write", Value: 3000}, {Op: "Total", Value: 10000},
			}},
		}
	}
	old := &statsRow{s: at(1e9, 10e9)}
	r := &statsRow{s: at(1e9+cpu*1e7, 12e9), short: true}
	r.measure(old)
	return r
}

func TestStatsRow(t *testing.T) {
	r := sampled("web", 50, 512<<20)
	for _, tt := range []struct{ field, want string }{
		{"CPUPerc", "50.00%"}, {"MemUsage", "512MiB / 1GiB"}, {"MemPerc", "50.00%"}, {"NetIO", "1.5kB / 2kB"},
		{"BlockIO", "7kB / 3kB"}, {"PIDs", "0"}, {"Name", "web"}, {"ID", "abababababab"},
	} {
		if got := new(fieldFinder).of(r, tt.field); got != tt.want {
			t.Errorf("%s: want %q, got %q", tt.field, tt.want, got)
		}
	}
	r.s.MemoryStats.Stats = map[string]uint64{"total_inactive_file": 256 << 20, "inactive_file": 1}
	if got := r.memory(); got != 256<<20+4096 {
		t.Errorf("cgroup v1: %d bytes of memory", got)
	}
	still := &statsRow{s: container.StatsResponse{Name: "/off"}}
	if got := still.CPUPerc() + still.MemUsage() + still.NetIO() + still.PIDs(); got != "---- / ------" {
		t.Errorf("one that does not run: %q", got)
	}
	// Started anew, its counters are below the old ones.
	again := &statsRow{s: r.s}
	again.s.CPUStats.CPUUsage.TotalUsage = 1
	if again.measure(r); again.cpu != 0 {
		t.Errorf("%v%% after a restart", again.cpu)
	}
}

func TestStatsViewFits(t *testing.T) {
	rows := []*statsRow{sampled("small", 5, 300<<20), sampled("a-rather-long-name-of-a-container", 150, 100<<20), sampled("ev\x1b[2Jil", 20, 1<<20)}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, width := range []int{20, 40, 60, 80, 120, 200} {
		for _, height := range []int{4, 5, 24} {
			v := &statsView{sort: 'c'}
			screen := v.draw(rows, width, height, now)
			screen = strings.NewReplacer(screenHome, "", screenRest, "", lineRest, "", bold, "", plainText, "").Replace(screen)
			if strings.Contains(screen, "\x1b") {
				t.Fatalf("a name commands the terminal: %q", screen)
			}
			lines := strings.Split(screen, "\r\n")
			if len(lines) > height {
				t.Errorf("%d lines on a terminal of %d", len(lines), height)
			}
			for _, l := range lines {
				if n := utf8.RuneCountInString(l); n > width {
					t.Errorf("a line of %d characters on a terminal of %d: %q", n, width, l)
				}
			}
			if height == 4 && !strings.Contains(screen, "1 not") && width >= 60 {
				t.Errorf("no word of what is not shown: %q", screen)
			}
		}
	}
}

func TestStatsViewSorts(t *testing.T) {
	rows := []*statsRow{sampled("aa", 5, 300<<20), sampled("bb", 150, 100<<20), sampled("cc", 20, 900<<20)}
	for key, want := range map[byte]string{'c': "bbccaa", 'm': "ccaabb", 'n': "aabbcc"} {
		v := &statsView{sort: 'n'}
		v.key(key)
		got := ""
		for _, l := range strings.Split(v.draw(rows, 100, 24, time.Now()), "\r\n")[1:4] {
			got += l[:2]
		}
		if got != want {
			t.Errorf("key %c: want %s, got %s", key, want, got)
		}
	}
}

func TestSparkline(t *testing.T) {
	if got, want := sparkline([]float64{0, 50, 100, 1000, -1}, 7, 100), "  ▁▅██▁"; got != want {
		t.Errorf("want %q, got %q", want, got)
	}
	if got, want := sparkline([]float64{100, 0, 100}, 2, 100), "▁█"; got != want {
		t.Errorf("want %q, got %q", want, got)
	}
	if got, want := bar(34, 10), "███░░░░░░░"; got != want {
		t.Errorf("want %q, got %q", want, got)
	}
}
