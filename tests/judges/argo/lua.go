// Package argo runs the scripts of a resource customization as Argo CD does. This file has the Lua
// machine; health.go and actions.go evaluate the result of a script.
//
// It follows util/lua/lua.go of argo-cd v3.5.7, whose own packages bring a build of minutes; the
// module in the folder argocd runs those on the same tests. Only `require("os")`, which
// offers the time of day there, is left out.
package argo

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	luajson "layeh.com/gopher-json"
)

// timeLimit is that of Argo CD for one script.
const timeLimit = time.Second

// runScript runs a script with the global obj and returns what it leaves on top of the stack as
// JSON, nil for Lua's nil.
func runScript(script string, object *unstructured.Unstructured) (json.RawMessage, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	// Scripts of an argocd-cm get no others: no string, no math.
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{
		{lua.LoadLibName, lua.OpenPackage},
		{lua.BaseLibName, lua.OpenBase},
		{lua.TabLibName, lua.OpenTable},
	} {
		call := lua.P{Fn: state.NewFunction(library.open), Protect: true}
		if err := state.CallByParam(call, lua.LString(library.name)); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeLimit)
	defer cancel()
	state.SetContext(ctx)
	state.SetGlobal("actionParams", state.NewTable())
	state.SetGlobal("obj", toLua(state, object.Object))
	if err := state.DoString(script); err != nil {
		return nil, err
	}
	switch result := state.Get(-1); result.Type() {
	case lua.LTNil:
		return nil, nil
	case lua.LTTable:
		return luajson.Encode(result)
	default:
		return nil, fmt.Errorf("expect table output from Lua script, not %s", result.Type())
	}
}

func toLua(state *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case bool:
		return lua.LBool(value)
	case float64:
		return lua.LNumber(value)
	case int64:
		return lua.LNumber(value)
	case string:
		return lua.LString(value)
	case []any:
		table := state.CreateTable(len(value), 0)
		for _, item := range value {
			table.Append(toLua(state, item))
		}
		return table
	case map[string]any:
		table := state.CreateTable(0, len(value))
		for key, item := range value {
			table.RawSetH(lua.LString(key), toLua(state, item))
		}
		return table
	default:
		return lua.LNil
	}
}
