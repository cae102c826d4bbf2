package local

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"

	"hull/cli"
	"hull/engine"
	"hull/registry"
	offer "hull/registry/serve"
)

// serveRegistry offers the images of a store as a registry.
func serveRegistry(ctx context.Context, o cli.ServeRegistry, p cli.Program) error {
	root, run, err := directories(o.Store)
	if err != nil {
		return err
	}
	level := slog.LevelWarn
	if o.Verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(p.Stderr, &slog.HandlerOptions{Level: level}))
	l := offer.Listen{
		Address: o.Address, Cert: o.Cert, Key: o.Key, CA: o.CA, Writable: o.Writable, Insecure: o.Insecure, Log: log,
	}
	if !o.Stdio {
		if err := l.Check(); err != nil { // before anything is made
			return err
		}
	}
	e := openEngine(root, run, o.Store.Config, p)
	h, err := e.Offer(offer.Options{Writable: o.Writable, Log: log}, engine.Remote{Credential: func(name string) registry.Credential {
		return registry.Credential(o.Login(ctx, name))
	}})
	if err != nil {
		return err
	}
	if o.Stdio {
		return offer.One(ctx, h, p.Stdin, p.Stdout, log)
	}
	names, example, err := e.Offered(ctx)
	if err != nil {
		return err
	}
	l.Ready = func(addr net.Addr, secure bool) { printOffer(p.Stderr, root, addr, secure, o, names, example) }
	return offer.Run(ctx, h, l)
}

// maxOffered is how many names are printed.
const maxOffered = 10

// printOffer tells what is to be had, and how.
func printOffer(w io.Writer, root string, addr net.Addr, secure bool, o cli.ServeRegistry, names []string, example string) {
	scheme, mode := "http", "read-only"
	if secure {
		scheme = "https"
	}
	if o.Writable {
		mode = "writable"
	}
	fmt.Fprintf(w, "Offering the images of %s at %s://%s, %s\n", root, scheme, addr, mode)
	host := addr.String()
	if a, ok := addr.(*net.TCPAddr); ok && a.IP.IsUnspecified() {
		host = fmt.Sprintf("HOST:%d", a.Port) // by whatever name others know this machine
	}
	if a, ok := addr.(*net.TCPAddr); ok && !a.IP.IsLoopback() && o.CA == "" {
		if o.Writable {
			fmt.Fprintln(w, "Everybody who can reach it can replace every image that is run here.")
		} else {
			fmt.Fprintln(w, "Everybody who can reach it can pull every image that is here.")
		}
	}
	some, more := names, ""
	if len(some) > maxOffered {
		some, more = names[:maxOffered], fmt.Sprintf(" and %d more", len(names)-maxOffered)
	}
	if len(names) > 0 {
		fmt.Fprintf(w, "  %s%s\n", strings.Join(some, ", "), more)
		fmt.Fprintf(w, "  docker pull %s/%s\n", host, example)
	} else {
		fmt.Fprintln(w, "  no image yet")
	}
	if o.Writable {
		fmt.Fprintf(w, "  docker push %s/NAME\n", host)
	}
}
