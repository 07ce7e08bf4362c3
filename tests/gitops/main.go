// Command gitops prints what GitOps tools make of objects: the status that Helm and Flux compute (kstatus), or the
// health that Argo CD computes with a Lua script.
//
//	gitops kstatus <objects.json
//	gitops health script.lua <objects.json
//
// It reads an array of objects as JSON, and prints an array of {status, message}, in the same order.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

// result is what a tool makes of one object.
type result struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

// scriptTime is how long a script may run for one object. Argo CD gives it as long.
const scriptTime = time.Second

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	var judge func(object map[string]any) (result, error)
	switch {
	case len(args) == 1 && args[0] == "kstatus":
		judge = kstatus
	case len(args) == 2 && args[0] == "health":
		script, err := os.ReadFile(args[1])
		if err != nil {
			return err
		}
		judge = func(object map[string]any) (result, error) { return health(string(script), object) }
	default:
		return errors.New("usage: gitops kstatus | gitops health script.lua; objects on standard input")
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	// Whole numbers become integers, as the libraries expect.
	var objects []any
	if err := json.Unmarshal(text, &objects); err != nil {
		return fmt.Errorf("cannot read the objects: %w", err)
	}
	results := make([]result, 0, len(objects))
	for n, object := range objects {
		fields, ok := object.(map[string]any)
		if !ok {
			return fmt.Errorf("number %d is no object", n)
		}
		judged, err := judge(fields)
		if err != nil {
			return fmt.Errorf("number %d: %w", n, err)
		}
		results = append(results, judged)
	}
	text, err = json.Marshal(results)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, string(text))
	return err
}

func kstatus(object map[string]any) (result, error) {
	computed, err := status.Compute(&unstructured.Unstructured{Object: object})
	if err != nil {
		return result{}, err
	}
	return result{Status: computed.Status.String(), Message: computed.Message}, nil
}

// libraries are what a script may use. The first one keeps the list of the others.
var libraries = []struct {
	name string
	open lua.LGFunction
}{
	{lua.LoadLibName, lua.OpenPackage},
	{lua.BaseLibName, lua.OpenBase},
	{lua.TabLibName, lua.OpenTable},
}

// health runs a script with the object as the global obj. As in Argo CD, there are only the basic functions and those for
// tables, unless an administrator allows more.
func health(script string, object map[string]any) (result, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, library := range libraries {
		open := lua.P{Fn: state.NewFunction(library.open), Protect: true}
		if err := state.CallByParam(open, lua.LString(library.name)); err != nil {
			return result{}, err
		}
	}
	within, cancel := context.WithTimeout(context.Background(), scriptTime)
	defer cancel()
	state.SetContext(within)
	state.SetGlobal("obj", value(state, object))
	if err := state.DoString(script); err != nil {
		return result{}, err
	}
	table, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return result{}, fmt.Errorf("the script returns a %s", state.Get(-1).Type())
	}
	text := func(field string) (string, error) {
		switch found := table.RawGetString(field).(type) {
		case lua.LString:
			return string(found), nil
		default:
			return "", fmt.Errorf("%s is a %s", field, found.Type())
		}
	}
	status, err := text("status")
	if err != nil {
		return result{}, err
	}
	message, err := text("message")
	return result{Status: status, Message: message}, err
}

// value converts a value of JSON. A null is nil, so the field that has it is absent.
func value(state *lua.LState, from any) lua.LValue {
	switch from := from.(type) {
	case string:
		return lua.LString(from)
	case bool:
		return lua.LBool(from)
	case int64:
		return lua.LNumber(from)
	case float64:
		return lua.LNumber(from)
	case []any:
		list := state.CreateTable(len(from), 0)
		for _, item := range from {
			list.Append(value(state, item))
		}
		return list
	case map[string]any:
		table := state.CreateTable(0, len(from))
		for field, item := range from {
			table.RawSetString(field, value(state, item))
		}
		return table
	default:
		return lua.LNil
	}
}
