// Package clients holds the tests of other people's clients on `hull serve`: Docker's own command, its Python package,
// and clients that do what none should.
package clients
