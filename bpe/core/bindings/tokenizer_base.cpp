// The base class of bpe.Tokenizer.

#include "bindings/encoder.hpp"
#include "bindings/python.hpp"
#include "encode/added.hpp"
#include "encode/special.hpp"

namespace bpe {

namespace {

// The methods of Tokenizer, its subclass in Python, that are called for texts so short that a Python function around
// them would take longer than they do.
class TokenizerBase {
 public:
    // `core` is None if another library encodes. `always` holds the added tokens that need no permission, and is
    // None if there are none.
    TokenizerBase(nb::object core, nb::object all_special, nb::object always)
        : core_(std::move(core)),
          all_special_(std::move(all_special)),
          always_object_(std::move(always)),
          encoder_(core_.is_none() ? nullptr : nb::cast<PythonEncoder*>(core_)),
          special_(nb::cast<const SpecialTokens*>(all_special_)),
          always_(always_object_.is_none() ? nullptr : nb::cast<const AddedTokens*>(always_object_)) {}

    nb::object encode_ordinary(nb::handle self, nb::handle text) const {
        if (!encoder_) return self.attr("_encode_slowly")(text);
        return encoder_->encode(text, always_);
    }

    // Tokenizer.encode with its defaults: no special token is allowed, and any in the text is an error.
    nb::object encode_without_special(nb::handle self, nb::handle text) const {
        refuse_special(self, text);
        return encode_ordinary(self, text);
    }

    // The same two into arrays.
    nb::object ordinary_to_numpy(nb::handle self, nb::handle text) const {
        if (!encoder_) return self.attr("_core").attr("encode_to_numpy")(text, always_object_);
        return encoder_->encode_to_numpy(text, always_);
    }
    nb::object without_special_to_numpy(nb::handle self, nb::handle text) const {
        refuse_special(self, text);
        return ordinary_to_numpy(self, text);
    }

 private:
    // Raises if a special token is in the text.
    void refuse_special(nb::handle self, nb::handle text) const {
        const TextArgument content(text);
        const Bytes bytes = content.bytes();
        const auto match = special_->find(bytes, 0);
        if (match.begin >= bytes.size()) return;
        const Bytes token = bytes.subspan(match.begin, match.end - match.begin);
        self.attr("_raise_disallowed")(nb::str(reinterpret_cast<const char*>(token.data()), token.size()));
    }

    nb::object core_;
    nb::object all_special_;
    nb::object always_object_;
    PythonEncoder* encoder_;
    const SpecialTokens* special_;
    const AddedTokens* always_;
};

// Returns the only argument of a method, given by position or by the name "text".
PyObject* text_argument(PyObject* const* arguments, Py_ssize_t count, PyObject* names) {
    const Py_ssize_t named = names ? tuple_size(names) : 0;
    if (count + named == 1 && (named == 0 || PyUnicode_CompareWithASCIIString(tuple_item(names, 0), "text") == 0)) {
        return arguments[0];
    }
    PyErr_SetString(PyExc_TypeError, "expected one argument: text");
    return nullptr;
}

// A method of TokenizerBase as the interpreter calls it. The interpreter's own methods can be pickled when bound, and
// inspected; nanobind's cannot.
template <nb::object (TokenizerBase::*method)(nb::handle, nb::handle) const>
PyObject* call(PyObject* self, PyObject* const* arguments, Py_ssize_t count, PyObject* names) {
    PyObject* const text = text_argument(arguments, count, names);
    if (!text) return nullptr;
    if (!nb::inst_ready(self)) {
        PyErr_SetString(PyExc_TypeError, "the tokenizer is not initialized");
        return nullptr;
    }
    return object_or_error([&] { return (nb::inst_ptr<TokenizerBase>(self)->*method)(self, text); });
}

template <nb::object (TokenizerBase::*method)(nb::handle, nb::handle) const>
PyMethodDef method_def(const char* name, const char* doc) {
    const auto function = reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&call<method>));
    return {name, function, METH_FASTCALL | METH_KEYWORDS, doc};
}

// The first line is the signature that inspect.signature returns.
constexpr const char* kEncodeOrdinaryDoc = R"(encode_ordinary($self, text)
--

Encode a text, treating special tokens in it as ordinary text. Other added tokens become their ids.

Args:
    text (str | bytes): A str, bytes or any buffer. Lone surrogates in a str become U+FFFD, as in tiktoken. In bytes,
        each byte that is not part of well-formed UTF-8 counts as one character that is neither letter, number nor white
        space; it is kept.

Returns:
    list[int]: The ids.)";

constexpr const char* kEncodeWithoutSpecialDoc = R"(_encode_without_special($self, text)
--

Encode a text as `Tokenizer.encode` does by default: any special token in it is an error.)";

constexpr const char* kOrdinaryToNumpyDoc = R"(_ordinary_to_numpy($self, text)
--

Encode a text as `encode_ordinary` does, into an array.)";

constexpr const char* kWithoutSpecialToNumpyDoc = R"(_without_special_to_numpy($self, text)
--

Encode a text as `Tokenizer.encode` does by default, into an array.)";

// Must outlive the type.
PyMethodDef methods[] = {
    method_def<&TokenizerBase::encode_ordinary>("encode_ordinary", kEncodeOrdinaryDoc),
    method_def<&TokenizerBase::encode_without_special>("_encode_without_special", kEncodeWithoutSpecialDoc),
    method_def<&TokenizerBase::ordinary_to_numpy>("_ordinary_to_numpy", kOrdinaryToNumpyDoc),
    method_def<&TokenizerBase::without_special_to_numpy>("_without_special_to_numpy", kWithoutSpecialToNumpyDoc),
    {nullptr, nullptr, 0, nullptr},
};
PyType_Slot slots[] = {{Py_tp_methods, methods}, {0, nullptr}};

}  // namespace

void register_tokenizer_base(nb::module_& module) {
    nb::class_<TokenizerBase>(module, "TokenizerBase", nb::type_slots(slots))
        .def(nb::init<nb::object, nb::object, nb::object>(), nb::arg("core").none(), nb::arg("all_special"),
             nb::arg("always").none());
}

}  // namespace bpe
