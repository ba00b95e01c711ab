// Reads bodies (base64, one a line) as servers on Go would, and prints what it makes of each as a line of JSON. With the argument
// `struct` it reads into types, as the Go SDK does, where names have no case; otherwise into maps.
package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
)

type params struct {
	Name      any `json:"name"`
	URI       any `json:"uri"`
	Arguments any `json:"arguments"`
}

type message struct {
	Method any    `json:"method"`
	Params params `json:"params"`
}

type answer struct {
	OK        bool `json:"ok"`
	Method    any  `json:"method,omitempty"`
	Name      any  `json:"name,omitempty"`
	URI       any  `json:"uri,omitempty"`
	Arguments any  `json:"arguments,omitempty"`
}

func asStruct(body []byte) answer {
	var read message
	if json.Unmarshal(body, &read) != nil {
		return answer{}
	}
	return answer{true, read.Method, read.Params.Name, read.Params.URI, read.Params.Arguments}
}

func asMap(body []byte) answer {
	var read map[string]any
	// A stream of values, as a decoder on a request's body reads it.
	decoder := json.NewDecoder(bytes.NewReader(body))
	if decoder.Decode(&read) != nil {
		return answer{}
	}
	if _, err := decoder.Token(); err != io.EOF {
		return answer{}
	}
	inner, _ := read["params"].(map[string]any)
	return answer{true, read["method"], inner["name"], inner["uri"], inner["arguments"]}
}

func main() {
	read := asMap
	if len(os.Args) > 1 && os.Args[1] == "struct" {
		read = asStruct
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		body, err := base64.StdEncoding.DecodeString(lines.Text())
		if err != nil {
			panic(err)
		}
		text, err := json.Marshal(read(body))
		if err != nil {
			panic(err)
		}
		fmt.Println(string(text))
	}
}
