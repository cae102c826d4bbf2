// Package arch holds the house rules of docs and code that a machine can check: who may import whom, what the
// programs link and run before main, what a package documents.
//
//	go test ./test/arch              # check
//	go test ./test/arch -update      # accept the packages now linked; the diff is a design decision to review
package arch
