// Command box assembles the built-in image: Debian's static busybox and the few files that make it feel like a
// small Linux. make build runs it; what it writes is embedded in hull (package payload).
//
//	box -arch arm64 -o payload/data/box-arm64.tar.zst
//
// The result depends only on the busybox it found: names sorted, one fixed time, no owner but root. It runs as
// any user and executes nothing of the target architecture. Where no busybox can be had it says so and leaves no
// file, so that the build goes on without the image.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"time"
)

// maxSize is the promise to the size of the hull binary.
const maxSize = 4 << 20

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "box:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("box", flag.ExitOnError)
	arch := flags.String("arch", runtime.GOARCH, "architecture of the image, as Go calls it")
	out := flags.String("o", "box.tar.zst", "file to write")
	cache := flags.String("cache", ".cache/box", "directory that keeps downloaded packages")
	require := flags.Bool("require", false, "fail when no busybox can be had")
	flags.Parse(args)

	ctx, cancel := context.WithTimeoutCause(ctx, 3*time.Minute, errors.New("no answer from the mirror"))
	defer cancel()
	bb, err := find(ctx, *arch, *cache)
	if err != nil {
		if *require {
			return err
		}
		fmt.Fprintf(os.Stderr, "box: the built-in image is left out: %v\nbox: install busybox-static, or make a Debian mirror reachable, then run make build again\n", err)
		if err := os.Remove(*out); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	img, err := archive(bb, *arch)
	if err != nil {
		return err
	}
	if len(img) > maxSize {
		return fmt.Errorf("the image has %d bytes, more than the %d it may have", len(img), maxSize)
	}
	if err := replace(*out, img); err != nil {
		return err
	}
	fmt.Printf("box: %s: %s from %s, %d KiB\n", *out, bb.version, bb.origin, len(img)>>10)
	return nil
}

// replace writes data to path: readers see the old file or the new one.
func replace(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
