package engine

import (
	"regexp"
	"slices"

	"hull/errdef"
)

// nameMatcher matches a container's name against Docker's filter: regular expressions on the name with its slash
// or without. Only here, so that nobody else pays for a regexp.
func nameMatcher(exprs []string) (func(name string) bool, error) {
	var res []*regexp.Regexp
	for _, x := range exprs {
		re, err := regexp.Compile(x)
		if err != nil {
			return nil, errdef.Invalid("invalid filter 'name=%s': %w", clip(x), err)
		}
		res = append(res, re)
	}
	return func(name string) bool {
		return slices.ContainsFunc(res, func(re *regexp.Regexp) bool {
			return re.MatchString(name) || re.MatchString("/"+name)
		})
	}, nil
}
