// Command bench measures Hull against the floor that the kernel sets (limit/limit.c) and writes docs/benchmarks.md.
//
//	make bench                       # all, a few minutes, as root
//	go run ./bench -only run,exec -o -
//
// What is compared is run alternately, so that a noisy moment of the machine hits both. Medians of wall-clock time;
// each pair once in a tight loop and once with half a second between runs, because some costs of the kernel
// (grace periods, deferred work) hide when the next run follows at once.
//
// Beware: numbers of two runs of this program on a shared machine do not compare; ratios within one do.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"
)

func main() {
	var o options
	only := flag.String("only", "run,exec,crowd,ps,start,pss,peers,images,delivery,running", "what to measure")
	flag.StringVar(&o.out, "o", "docs/benchmarks.md", "file to write, - for the terminal")
	flag.IntVar(&o.loop, "n", 100, "runs of each command in a tight loop")
	flag.IntVar(&o.gaps, "gaps", 20, "runs of each command with half a second between")
	flag.IntVar(&o.crowd, "crowd", 100, "containers at once")
	flag.IntVar(&o.stopped, "stopped", 1000, "stopped containers")
	flag.IntVar(&o.alive, "running", 1000, "running containers")
	flag.IntVar(&o.peer, "peer", 20, "runs of each command beside docker and podman")
	flag.IntVar(&o.big, "big", 5, "runs of each command with a large image")
	flag.Parse()
	o.only = strings.Split(*only, ",")

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if os.Geteuid() == 0 {
		if slices.Contains(o.only, "images") || slices.Contains(o.only, "delivery") {
			if err := fetchDebian(ctx); err != nil {
				fmt.Fprintln(os.Stderr, "bench:", err)
				os.Exit(1)
			}
		}
		if code, entered := enterWorld(); entered {
			os.Exit(code)
		}
	}
	if err := bench(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	only                       []string
	out                        string
	loop, gaps, crowd, stopped int
	alive, peer, big           int
}

// row is one line of the table.
type row struct {
	what, against string
	a, b          time.Duration // medians
	bound         float64       // a may be at most bound times b; 0: see faster
	faster        float64       // b has to be at least faster times a; 0: no goal
	note          string
}

// pause is between two runs when kernel costs shall not hide.
const pause = 500 * time.Millisecond
