// Package packages reads which packages the files of an image say are installed: the databases of dpkg, apk and rpm, what
// Go puts into its programs, and what Python and npm put beside their packages.
//
//	if src := packages.SourceOf(path, executable); src != nil {
//		list, err := src.Read(file, size)
//	}
//	changes := packages.Compare(before, after)
//
// Strangers wrote the files. Each reader takes a bounded part of them, and answers with what it could read and an error.
package packages

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"path"
	"slices"
	"strings"

	"hull/errdef"
)

// Package is one package as its database names it.
type Package struct {
	Kind    string // deb, apk, rpm, go, python or npm
	Name    string
	Version string
	In      string // of a Go module: the program it is in
}

// Source is a kind of file that names packages.
type Source struct {
	Kind  string
	limit int64 // bytes of the file that are read at most
	read  func(p string, r io.ReaderAt, size int64) ([]Package, error)
	path  string
}

const (
	maxPackages = 200_000 // of one file
	maxField    = 1000    // bytes of a name or a version
)

// SourceOf returns how to read the file with this path; nil if it names no packages. Any executable may be a Go program.
func SourceOf(p string, executable bool) *Source {
	dir, base := path.Split(p)
	switch {
	case p == "/var/lib/dpkg/status":
		return &Source{"deb", 64 << 20, whole(readDpkg), p}
	case dir == "/var/lib/dpkg/status.d/" && !strings.HasSuffix(base, ".md5sums"): // distroless
		return &Source{"deb", 1 << 20, whole(readDpkg), p}
	case p == "/lib/apk/db/installed" || p == "/usr/lib/apk/db/installed":
		return &Source{"apk", 64 << 20, whole(readApk), p}
	case dir == "/var/lib/rpm/" || dir == "/usr/lib/sysimage/rpm/" || dir == "/usr/share/rpm/":
		switch base {
		case "rpmdb.sqlite":
			return &Source{"rpm", 1 << 30, readRpmSqlite, p}
		case "Packages.db":
			return &Source{"rpm", 1 << 30, readRpmNdb, p}
		case "Packages":
			return &Source{"rpm", 1 << 30, readRpmBdb, p}
		}
	case base == "METADATA" && strings.HasSuffix(dir, ".dist-info/"),
		base == "PKG-INFO" && strings.HasSuffix(dir, ".egg-info/"),
		strings.HasSuffix(base, ".egg-info") && strings.Contains(dir, "-packages/"):
		if strings.HasPrefix(p, "/usr/lib/python3/dist-packages/") {
			return nil // Debian's own, which dpkg names
		}
		return &Source{"python", 256 << 10, whole(readPython), p}
	case base == "package.json" && isModuleDir(dir):
		return &Source{"npm", 1 << 20, whole(readNpm), p}
	}
	if executable {
		return &Source{"go", 16 << 30, readGo, p}
	}
	return nil
}

// isModuleDir says whether dir is that of a package: .../node_modules/NAME/ or .../node_modules/@SCOPE/NAME/.
func isModuleDir(dir string) bool {
	parent := path.Dir(path.Clean(dir))
	if strings.HasPrefix(path.Base(parent), "@") {
		parent = path.Dir(parent)
	}
	return path.Base(parent) == "node_modules"
}

// Read returns the packages that the file names. Of a file that is damaged or too large it returns what it could read,
// and an error of the kind errdef.ErrInvalid.
func (s *Source) Read(r io.ReaderAt, size int64) ([]Package, error) {
	var tooLarge error
	if size > s.limit {
		tooLarge = errdef.Invalid("%s has %d bytes: only the first %d were read", s.path, size, s.limit)
		size = s.limit
	}
	list, err := s.read(s.path, r, size)
	if len(list) > maxPackages {
		list = list[:maxPackages]
		err = errdef.Invalid("%s names more than %d packages", s.path, maxPackages)
	}
	return slices.DeleteFunc(list, func(p Package) bool {
		return p.Name == "" || len(p.Name) > maxField || len(p.Version) > maxField
	}), cmp.Or(err, tooLarge)
}

// whole reads a file that is small enough to be read at once.
func whole(parse func([]byte) ([]Package, error)) func(string, io.ReaderAt, int64) ([]Package, error) {
	return func(_ string, r io.ReaderAt, size int64) ([]Package, error) {
		data := make([]byte, size)
		n, err := r.ReadAt(data, 0)
		if n < len(data) && err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		return parse(data[:n])
	}
}

// Change is what became of a package.
type Change struct {
	Package        // with the version it has now, or had when it was removed
	How     string // added, removed, up, down; or changed, when no order of the versions is known
	Old     string // the version it had
}

// Compare pairs the packages of two images by kind, name and program. The packages of files that did not change may be
// left out of both lists.
func Compare(before, after []Package) []Change {
	type key struct{ kind, name, in string }
	type versions struct{ old, young []string }
	all := map[key]*versions{}
	at := func(p *Package) *versions {
		k := key{p.Kind, p.Name, p.In}
		if all[k] == nil {
			all[k] = &versions{}
		}
		return all[k]
	}
	for i := range before {
		v := at(&before[i])
		v.old = append(v.old, before[i].Version)
	}
	for i := range after {
		v := at(&after[i])
		v.young = append(v.young, after[i].Version)
	}
	var out []Change
	for k, v := range all {
		old, young := without(v.old, v.young), without(v.young, v.old)
		p := Package{Kind: k.kind, Name: k.name, In: k.in}
		if len(old) == 1 && len(young) == 1 {
			p.Version = young[0]
			out = append(out, Change{p, direction(k.kind, old[0], young[0]), old[0]})
			continue
		}
		for _, version := range old {
			p.Version = version
			out = append(out, Change{p, "removed", version})
		}
		for _, version := range young {
			p.Version = version
			out = append(out, Change{p, "added", ""})
		}
	}
	slices.SortFunc(out, func(a, b Change) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.In, b.In), strings.Compare(a.Name, b.Name), strings.Compare(a.How, b.How), strings.Compare(a.Version, b.Version))
	})
	return out
}

// without are the different values of list that other has not.
func without(list, other []string) []string {
	seen := make(map[string]bool, len(other))
	for _, v := range other {
		seen[v] = true
	}
	var out []string
	for _, v := range list {
		if !seen[v] {
			seen[v] = true
			out = append(out, v)
		}
	}
	return out
}

func direction(kind, old, young string) string {
	switch c := compareVersions(kind, old, young); {
	case c < 0:
		return "up"
	case c > 0:
		return "down"
	}
	return "changed"
}

// paragraphs yields the fields of each paragraph of a file in the form of mail headers. Lines that go on do not matter.
func paragraphs(data []byte, sep byte, each func(field, value string), end func() bool) {
	for line := range bytes.Lines(data) {
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			if !end() {
				return
			}
			continue
		}
		if line[0] == ' ' || line[0] == '\t' {
			continue
		}
		if field, value, ok := bytes.Cut(line, []byte{sep}); ok && len(value) <= maxField+1 {
			each(string(field), string(bytes.TrimSpace(value)))
		}
	}
	end()
}

// readDpkg reads the status file of dpkg. What is removed but for its configuration is not installed.
func readDpkg(data []byte) (out []Package, err error) {
	var name, version, status string
	paragraphs(data, ':', func(field, value string) {
		switch field {
		case "Package":
			name = value
		case "Version":
			version = value
		case "Status":
			status = value
		}
	}, func() bool {
		// status.d has no Status: what is there is installed.
		if name != "" && (status == "" || strings.HasSuffix(status, " installed")) {
			out = append(out, Package{Kind: "deb", Name: name, Version: version})
		}
		name, version, status = "", "", ""
		return len(out) <= maxPackages
	})
	return out, nil
}

// readApk reads apk's database of installed packages.
func readApk(data []byte) (out []Package, err error) {
	var name, version string
	paragraphs(data, ':', func(field, value string) {
		switch field {
		case "P":
			name = value
		case "V":
			version = value
		}
	}, func() bool {
		if name != "" {
			out = append(out, Package{Kind: "apk", Name: name, Version: version})
		}
		name, version = "", ""
		return len(out) <= maxPackages
	})
	return out, nil
}
