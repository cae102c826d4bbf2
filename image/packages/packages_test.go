package packages

import (
	"bytes"
	"compress/gzip"
	"debug/buildinfo"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"hull/errdef"
)

// read reads data as the file with that path.
func read(t testing.TB, path string, data []byte) []string {
	t.Helper()
	src := SourceOf(path, true)
	if src == nil {
		t.Fatalf("%s names no packages", path)
	}
	list, err := src.Read(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	out := []string{}
	for _, p := range list {
		out = append(out, p.Kind+" "+p.Name+" "+p.Version)
	}
	return out
}

const dpkgStatus = `Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u4
Description: GNU C Library
 Version: this is text
 .

Package: gone
Status: deinstall ok config-files
Version: 1

Package: curl
Status: install ok installed
Version: 7.88.1-10
`

const apkInstalled = `C:Q1abc=
P:musl
V:1.2.4-r2
A:x86_64
F:lib
R:ld-musl-x86_64.so.1

P:busybox
V:1.36.1-r5
`

func TestRead(t *testing.T) {
	for _, row := range []struct {
		path, data string
		want       []string
	}{
		{"/var/lib/dpkg/status", dpkgStatus, []string{"deb libc6 2.36-9+deb12u4", "deb curl 7.88.1-10"}},
		{"/var/lib/dpkg/status.d/base-files", "Package: base-files\nVersion: 12.4\n", []string{"deb base-files 12.4"}},
		{"/lib/apk/db/installed", apkInstalled, []string{"apk musl 1.2.4-r2", "apk busybox 1.36.1-r5"}},
		{"/usr/lib/python3.12/site-packages/PyYAML-6.0.dist-info/METADATA", "Metadata-Version: 2.1\r\nName: Py_YAML.x\r\nVersion: 6.0\r\n\r\nName: not this\n", []string{"python py-yaml-x 6.0"}},
		{"/app/node_modules/@scope/a/package.json", `{"name":"@scope/a","version":"1.0.0","dependencies":{"b":"1"}}`, []string{"npm @scope/a 1.0.0"}},
		{"/app/node_modules/b/package.json", `{"name":"b"}`, []string{}},
		{"/bin/sh", "#!/bin/sh\n", []string{}},
		{"/bin/sh", "\x7fELF", []string{}},
		{"/var/lib/dpkg/status", "", []string{}},
	} {
		if got := read(t, row.path, []byte(row.data)); !slices.Equal(got, row.want) {
			t.Errorf("%s: want %q, got %q", row.path, row.want, got)
		}
	}
	for _, path := range []string{"/var/lib/dpkg/status.d/base-files.md5sums", "/app/package.json", "/app/node_modules/a/lib/package.json",
		"/usr/lib/python3/dist-packages/apt-2.dist-info/METADATA", "/METADATA", "/etc/passwd", "/var/lib/rpm/Name"} {
		if src := SourceOf(path, false); src != nil {
			t.Errorf("%s is taken for %s", path, src.Kind)
		}
	}
	if _, err := SourceOf("/var/lib/rpm/Packages", false).Read(strings.NewReader("x"), 1); !errors.Is(err, errdef.ErrInvalid) {
		t.Errorf("Berkeley DB: got %v", err)
	}
	if _, err := SourceOf("/a/node_modules/b/package.json", false).Read(strings.NewReader("{"), 1); !errors.Is(err, errdef.ErrInvalid) {
		t.Errorf("damaged: got %v", err)
	}
	big := strings.Repeat("Package: x\nVersion: 1\n\n", 1<<20/20)
	list, err := SourceOf("/var/lib/dpkg/status.d/x", false).Read(strings.NewReader(big), int64(len(big)))
	if !errors.Is(err, errdef.ErrInvalid) || len(list) == 0 {
		t.Errorf("too large: %d packages, %v", len(list), err)
	}
}

// rpmdb was written by rpm 4.18: two packages with headers longer than a page.
func rpmdb(t testing.TB) []byte {
	t.Helper()
	f, err := os.Open("testdata/rpmdb.sqlite.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRpm(t *testing.T) {
	data := rpmdb(t)
	want := []string{"rpm alpha 1.2-4.el9", "rpm beta 3:1.2-4.el9"}
	got := read(t, "/var/lib/rpm/rpmdb.sqlite", data)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("want %q, got %q", want, got)
	}
	db, err := openSqlite("x", bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	root, err := db.table("Packages")
	if err != nil {
		t.Fatal(err)
	}
	var headers [][]byte
	if err := db.rows(root, func(r []byte) bool { headers = append(headers, column(r, 1)); return true }); err != nil {
		t.Fatal(err)
	}
	got = read(t, "/usr/lib/sysimage/rpm/Packages.db", ndb(headers...))
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("ndb: want %q, got %q", want, got)
	}
}

// ndb is a database in rpm's own format with these headers.
func ndb(headers ...[]byte) []byte {
	le := binary.LittleEndian
	out := make([]byte, 4096)
	copy(out, "RpmP")
	le.PutUint32(out[12:], 1)
	for at := 32; at < 4096; at += 16 {
		copy(out[at:], "Slot")
	}
	for i, h := range headers {
		slot := out[32+32*i:] // every other slot is free
		le.PutUint32(slot[4:], uint32(i+1))
		le.PutUint32(slot[8:], uint32(len(out)/16))
		blob := make([]byte, 16)
		copy(blob, "BlbS")
		le.PutUint32(blob[4:], uint32(i+1))
		le.PutUint32(blob[12:], uint32(len(h)))
		out = append(append(out, blob...), h...)
		for len(out)%16 != 0 {
			out = append(out, 0)
		}
	}
	return out
}

// What Go says of its programs with debug/buildinfo is what is found.
func TestGo(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	checkGo(t, self)
	if testing.Short() {
		return
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("needs the go command")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":     "module example.com/prog\n\ngo 1.24\n\nrequire example.com/dep v1.2.3\n\nreplace example.com/dep => ./dep\n",
		"main.go":    "package main\n\nimport _ \"example.com/dep\"\n\nfunc main() {}\n",
		"dep/go.mod": "module example.com/dep\n",
		"dep/dep.go": "package dep\n",
	} {
		os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, arch := range []string{"amd64", "386"} {
		cmd := exec.CommandContext(t.Context(), goTool, "build", "-buildvcs=false", "-ldflags=-s -w", "-o", arch, ".")
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOARCH="+arch, "CGO_ENABLED=0", "GOFLAGS=-mod=mod", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		got := checkGo(t, filepath.Join(dir, arch))
		if !slices.Contains(got, "go example.com/prog (devel)") {
			t.Errorf("got %q", got)
		}
	}
}

func checkGo(t *testing.T, program string) []string {
	t.Helper()
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"go go " + strings.TrimPrefix(info.GoVersion, "go")}
	if info.Main.Path != "" {
		want = append(want, "go "+info.Main.Path+" "+info.Main.Version)
	}
	for _, d := range info.Deps {
		version := d.Version
		if d.Replace != nil {
			version = strings.TrimSpace(d.Replace.Path + " " + d.Replace.Version)
		}
		want = append(want, "go "+d.Path+" "+version)
	}
	got := read(t, "/bin/program", data)
	revision := slices.IndexFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "vcs.revision" })
	if revision >= 0 && info.Main.Version == "(devel)" {
		want[1] = "go " + info.Main.Path + " " + info.Settings[revision].Value[:12]
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s:\nwant %q\n got %q", program, want, got)
	}
	return got
}

func TestCompareVersions(t *testing.T) {
	for _, row := range []string{
		"deb 1.0 < 1.1", "deb 1.9 < 1.10", "deb 1.0~rc1 < 1.0", "deb 1.0 < 1.0a", "deb 1.0-1 < 1.0-2", "deb 2 < 1:1", "deb 1.0a < 1.0+", "deb 1.0 < 1.0-1",
		"deb 7.88.1-10+deb12u4 < 7.88.1-10+deb12u12", "deb 1.01 = 1.1", "deb 0:1 = 1",
		"rpm 1.2-4.el9 < 1.2-10.el9", "rpm 3.0-1 < 2:1.0-1",
		"apk 1.2.4-r2 < 1.2.4-r10", "apk 1.2_rc1 < 1.2", "apk 1.2 < 1.2_p1",
		"go v1.2.3 < v1.10.0", "go v1.2.3-rc.1 < v1.2.3", "go v0.0.0-20230101000000-a < v0.0.0-20240101000000-b", "go 1.24rc1 < 1.24.0", "go v2.0.0+incompatible = v2.0.0",
		"npm 1.0.0-beta < 1.0.0", "npm 9.0.0 < 10.0.0", "python 1.0rc1 < 1.0", "python 1.0.dev1 < 1.0", "python 2.9 < 2.10", "python 1.0b2 < 1.0rc1",
	} {
		f := strings.Fields(row)
		want := map[string]int{"<": -1, "=": 0}[f[2]]
		if got := compareVersions(f[0], f[1], f[3]); got != want {
			t.Errorf("%s: got %d", row, got)
		}
		if got := compareVersions(f[0], f[3], f[1]); got != -want {
			t.Errorf("%s, turned round: got %d", row, got)
		}
	}
}

func TestCompare(t *testing.T) {
	deb := func(name, version string) Package { return Package{Kind: "deb", Name: name, Version: version} }
	var got []string
	for _, c := range Compare(
		[]Package{deb("same", "1"), deb("up", "1"), deb("down", "2"), deb("gone", "1"), {Kind: "npm", Name: "two", Version: "1"}, {Kind: "npm", Name: "two", Version: "2"}, {Kind: "go", Name: "m", Version: "1", In: "/a"}, deb("odd", "1.0")},
		[]Package{deb("same", "1"), deb("up", "2"), deb("down", "1"), deb("new", "1"), {Kind: "npm", Name: "two", Version: "2"}, {Kind: "npm", Name: "two", Version: "3"}, {Kind: "npm", Name: "two", Version: "3"}, {Kind: "go", Name: "m", Version: "2", In: "/b"}, deb("odd", "1.00")},
	) {
		got = append(got, fmt.Sprint(c.Kind, " ", c.Name, " ", c.How, " ", c.Old, ">", c.Version, c.In))
	}
	want := []string{"deb down down 2>1", "deb gone removed 1>1", "deb new added >1", "deb odd changed 1.0>1.00", "deb up up 1>2", "go m removed 1>1/a", "go m added >2/b", "npm two up 1>3"}
	if !slices.Equal(got, want) {
		t.Errorf("want %q\n got %q", want, got)
	}
}

// Whatever a file holds, reading it ends soon, and what it names is short.
func FuzzRead(f *testing.F) {
	for _, s := range []string{dpkgStatus, apkInstalled, "Name: x\nVersion: 1\n", `{"name":"a","version":"1"}`} {
		f.Add([]byte(s))
	}
	f.Add(ndb([]byte("\x00\x00\x00\x01\x00\x00\x00\x04\x00\x00\x03\xe8\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00\x01abc\x00")))
	f.Add(tinySqlite())
	f.Add(tinyGo())
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<20 {
			return
		}
		for _, path := range []string{"/var/lib/dpkg/status", "/lib/apk/db/installed", "/x.dist-info/METADATA", "/node_modules/x/package.json",
			"/var/lib/rpm/rpmdb.sqlite", "/var/lib/rpm/Packages.db", "/bin/program"} {
			list, err := SourceOf(path, true).Read(bytes.NewReader(data), int64(len(data)))
			if err != nil && errdef.Kind(err) != errdef.ErrInvalid {
				t.Errorf("%s: %v", path, err)
			}
			for _, p := range list {
				if p.Name == "" || len(p.Name) > maxField || len(p.Version) > maxField {
					t.Errorf("%s: %+v", path, p)
				}
			}
			for _, c := range Compare(list, nil) {
				compareVersions(c.Kind, c.Version, "1.0-1")
			}
		}
	})
}

// tinySqlite is a database of two pages whose table Packages has no rows.
func tinySqlite() []byte {
	b := make([]byte, 1024)
	copy(b, "SQLite format 3\x00\x02\x00")
	page := b[100:]
	page[0], page[4] = leafTable, 1
	record := "\x06\x17\x1d\x1d\x01\x0d" + "table" + "Packages" + "Packages" + "\x02" // a varint for each column, then their values
	cell := append([]byte{byte(len(record)), 1}, record...)
	at := 512 - len(cell)
	copy(b[at:], cell)
	binary.BigEndian.PutUint16(page[8:], uint16(at))
	b[512] = leafTable
	return b
}

// tinyGo is as much of a program as is read of it.
func tinyGo() []byte {
	b := make([]byte, 256)
	copy(b, "\x7fELF\x02\x01\x01")
	le := binary.LittleEndian
	le.PutUint64(b[32:], 64) // one program header
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 1)
	le.PutUint32(b[64:], 1)
	le.PutUint32(b[68:], 6)
	le.PutUint64(b[72:], 128)
	le.PutUint64(b[96:], 128)
	copy(b[128:], goMagic+"\x08\x02")
	copy(b[160:], "\x06go1.24\x20"+strings.Repeat("x", 15)+"\n"+strings.Repeat("x", 16))
	return b
}

func TestTinySeeds(t *testing.T) {
	if got := read(t, "/bin/program", tinyGo()); len(got) != 1 || got[0] != "go go 1.24" {
		t.Errorf("got %q", got)
	}
	if got := read(t, "/var/lib/rpm/rpmdb.sqlite", tinySqlite()); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}
