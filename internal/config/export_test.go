package config

import "reflect"

// LoadFrom is Load with another system file.
var LoadFrom = load

// BuiltIn is what the daemon goes by where nobody says anything.
var BuiltIn = defaults

// Keys lists the dotted keys of the system's, the user's and the project's file.
func Keys() (system, user, project []string) {
	return keysOf(reflect.TypeFor[File](), ""), keysOf(reflect.TypeFor[User](), ""), keysOf(reflect.TypeFor[Project](), "")
}

// Variables lists the environment's names.
func Variables() []string {
	var out []string
	for _, k := range append(clientKeys(&File{}), daemonKeys(&File{})...) {
		out = append(out, k.name)
	}
	return out
}
