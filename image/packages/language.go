package packages

import (
	"bytes"
	"encoding/json"
	"strings"

	"hull/errdef"
)

// readPython reads the head of METADATA or PKG-INFO.
func readPython(data []byte) ([]Package, error) {
	p := Package{Kind: "python"}
	paragraphs(data, ':', func(field, value string) {
		switch {
		case strings.EqualFold(field, "Name") && p.Name == "":
			p.Name = pythonName(value)
		case strings.EqualFold(field, "Version") && p.Version == "":
			p.Version = value
		}
	}, func() bool { return false }) // the first paragraph is all: a description follows
	if p.Name == "" {
		return nil, nil
	}
	return []Package{p}, nil
}

// pythonName is the one of several spellings that PEP 503 compares.
func pythonName(s string) string {
	var b strings.Builder
	dash := false
	for _, r := range strings.ToLower(s) {
		if r == '-' || r == '_' || r == '.' {
			dash = true
			continue
		}
		if dash && b.Len() > 0 {
			b.WriteByte('-')
		}
		dash = false
		b.WriteRune(r)
	}
	return b.String()
}

// readNpm reads the package.json of an installed package. What has no version is not a package but a part of one.
func readNpm(data []byte) ([]Package, error) {
	var p struct{ Name, Version any }
	if err := json.Unmarshal(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), &p); err != nil {
		return nil, errdef.Invalid("a package.json is damaged: %w", err)
	}
	name, _ := p.Name.(string)
	version, _ := p.Version.(string)
	if name == "" || version == "" {
		return nil, nil
	}
	return []Package{{Kind: "npm", Name: name, Version: version}}, nil
}
