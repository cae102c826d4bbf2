// Package payload is what hull carries inside itself, so that one file is the install: the program
// hull-runtime, extracted once into the store, and the image box.
//
//	digest, err := payload.RuntimeDigest()     // names <root>/bin/<digest>; costs nothing
//	if notExtracted(digest) {
//		data, err := payload.Runtime()
//		...
//	}
//
// The files come from make build (payload/data, by architecture). Without them everything compiles, and each
// function says what to do. Beware: Runtime and Box copy megabytes; keep them off the hot path.
package payload

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"strings"

	"hull/errdef"
)

const (
	runtimeFile = "data/hull-runtime-" + arch
	digestFile  = runtimeFile + ".sha256"
	boxFile     = "data/box-" + arch + ".tar.zst"
)

// RuntimeDigest is the SHA-256 of the carried hull-runtime, 64 hex digits, computed when hull was built.
// It is errdef.ErrUnavailable when this hull was built without its runtime.
func RuntimeDigest() (string, error) { return digest(files) }

// Runtime is the carried hull-runtime, an executable for this architecture, checked against RuntimeDigest.
func Runtime() ([]byte, error) { return program(files) }

// Box is the built-in image: an OCI layout with docker's manifest.json, as a tar compressed with zstd.
// It is errdef.ErrUnavailable when this hull was built without it.
func Box() ([]byte, error) { return image(files) }

func digest(fsys fs.FS) (string, error) {
	line, err := read(fsys, digestFile, "its runtime")
	if err != nil {
		return "", err
	}
	// sha256sum's format: the digest, then the file's name.
	d, _, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
	if b, err := hex.DecodeString(d); err != nil || len(b) != sha256.Size {
		return "", errdef.As(errdef.ErrCorrupt, errors.New("the digest of the runtime inside this hull is damaged; run make build"))
	}
	return d, nil
}

func program(fsys fs.FS) ([]byte, error) {
	want, err := digest(fsys)
	if err != nil {
		return nil, err
	}
	data, err := read(fsys, runtimeFile, "its runtime")
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != want {
		return nil, errdef.As(errdef.ErrCorrupt, errors.New("the runtime inside this hull is not the one it was built with; run make build"))
	}
	return data, nil
}

func image(fsys fs.FS) ([]byte, error) { return read(fsys, boxFile, "the image box") }

func read(fsys fs.FS, name, what string) ([]byte, error) {
	data, err := fs.ReadFile(fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errdef.Unavailable("this hull was built for %s without %s; run make build", arch, what)
	}
	return data, err
}
